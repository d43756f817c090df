"""An OpenSearch with the security plugin, for tests about users, roles, TLS and hidden fields.

The fixture `secured` (tests/conftest.py) gives a `SecuredCluster`: OpenSearch 2.19.1 with k-NN and
the security plugin, a Valkey and an embeddings server of its own, all emptied before each test. It
starts with the first test that asks for it, in about 20 s on two busy cores, with 550 MB. A test
that needs none of this should not ask for it.

    def test_masked(secured: SecuredCluster) -> None:
        secured.search.create("shop_logs_2026_11")            # as the administrator
        secured.search.index("shop_logs_2026_11", [{"level": "ERROR", "message": "x"}])
        user = secured.user(masked_fields=["trace_id"])       # least rights, one field masked
        assert secured.pipeline(user).run().skipped           # the product, as that user

`user()` has the rights of deploy/opensearch-role.json and no other; its keywords narrow them:
`fls`, `dls`, `masked_fields` as in a role of the plugin, `without` takes rights away, `patterns`
says for which indices. `settings(user)`, `pipeline(user)` and `environment(user)` (for a process)
are the product's way in. `api` is the plugin's REST interface for whatever else is needed, such as
taking a right away in mid-run: `secured.role("enrich", without=["indices:data/write/*"])`.
"""

from __future__ import annotations

import fnmatch
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.api_control import ApiControl
from dev.opensearch_security import ADMIN
from dev.services import Services
from enrich.settings import RUNS_INDEX, Settings, load_settings
from tests.conftest import PREFIX, ROOT, Pipeline, Search, empty_redis

API = "/_plugins/_security/api"

#: The plugin refuses weaker ones.
PASSWORD = "Right-Secret-4711"


def least_rights() -> dict[str, Any]:
    """The role that deploy/README.md tells operators to create."""
    return dict(json.loads((ROOT / "deploy" / "opensearch-role.json").read_text()))


@dataclass(frozen=True, kw_only=True)
class User:
    """Someone who may log in."""

    name: str
    password: str = field(repr=False)


class SecuredCluster:
    """The administrator's hands on the cluster, and the product run as any of its users."""

    def __init__(self, stack: Services) -> None:
        self.stack = stack
        context = ssl.create_default_context(cafile=str(stack.authority))
        #: OpenSearch asked as its administrator: the independent witness.
        self.search = Search(stack.opensearch.url, auth=ADMIN, verify=context)
        #: The embeddings server of this stack: how often it was asked, and faults for it.
        self.embeddings = ApiControl(stack.embeddings.url, stack.control_key)
        self._pipelines: list[Pipeline] = []
        #: Paths of what was made in the plugin.
        self._made: list[str] = []
        # The demonstration configuration gives everybody a role whose rights of the cluster would
        # hide that one is missing.
        self.search("DELETE", f"{API}/rolesmapping/own_index", ok=False)

    def close(self) -> None:
        for pipeline in self._pipelines:
            pipeline.close()
        for path in self._made:
            self.search("DELETE", f"{API}/{path}", ok=False)
        self.embeddings.close()
        self.search.http.close()

    def empty(self) -> None:
        """No index, no template, and nothing in Redis or in the embeddings server's memory."""
        for index in self.search("GET", "/_cat/indices?format=json&expand_wildcards=all"):
            if index["index"] != ".opendistro_security":
                self.search("DELETE", f"/{index['index']}")
        self.search("DELETE", "/_index_template/*", ok=False)
        self.embeddings.reset()
        empty_redis(self.stack.environment()["REDIS_URL"])

    def api(self, method: str, path: str, body: Any = None, *, ok: bool = True) -> Any:
        """The plugin's REST interface as its administrator; `PUT roles/x` lives until the end."""
        if method == "PUT" and path not in self._made:
            # The newest first: what refers to another is removed before it.
            self._made.insert(0, path)
        return self.search(method, f"{API}/{path}", body, ok=ok)

    def role(
        self,
        name: str,
        *,
        patterns: Sequence[str] | None = None,
        without: Sequence[str] = (),
        fls: Sequence[str] = (),
        dls: str = "",
        masked_fields: Sequence[str] = (),
    ) -> None:
        """Create or change a role: least rights, narrowed.

        Args:
            patterns: of the indices with logs that it is for; None for those of the file.
            without: rights to leave out, with wildcards.
            fls: visible fields, or hidden ones as "~name".
            dls: a query, as JSON, that visible documents match.
            masked_fields: fields of which a hash is shown.
        """
        role = least_rights()

        def kept(rights: list[str]) -> list[str]:
            return [r for r in rights if not any(fnmatch.fnmatchcase(r, w) for w in without)]

        role["cluster_permissions"] = kept(role["cluster_permissions"])
        for permission in role["index_permissions"]:
            permission["allowed_actions"] = kept(permission["allowed_actions"])
            if permission["index_patterns"] == [RUNS_INDEX]:
                continue
            permission |= {"fls": list(fls), "masked_fields": list(masked_fields), "dls": dls}
            if patterns is not None:
                permission["index_patterns"] = list(patterns)
        self.api("PUT", f"roles/{name}", role)

    def user(self, name: str = "enrich", password: str = PASSWORD, **narrowed: Any) -> User:
        """A user with a role of the same name; keywords as of `role`."""
        self.role(name, **narrowed)
        self.api("PUT", f"internalusers/{name}", {"password": password})
        self.api("PUT", f"rolesmapping/{name}", {"users": [name]})
        return User(name=name, password=password)

    def environment(self, user: User) -> dict[str, str]:
        """The variables that let a process of the product work here as `user`."""
        return {
            **self.stack.environment(),
            "OPENSEARCH_USER": user.name,
            "OPENSEARCH_PASSWORD": user.password,
            "ENRICH_LOG_FILE": "none",
            "ENRICH_BATCH_SIZE": "100",
        }

    def settings(self, user: User, **overrides: Any) -> Settings:
        """Settings that reach this cluster as `user`; keyword arguments override them."""
        values = {name.lower(): value for name, value in self.environment(user).items()}
        return load_settings(_env_file=None, **{**values, **overrides})

    def pipeline(self, user: User, **overrides: Any) -> Pipeline:
        """The product in this process, as `user`; closed when the test ends."""
        settings = self.settings(user, **{"enrich_redis_prefix": PREFIX, **overrides})
        self._pipelines.append(Pipeline(settings))
        return self._pipelines[-1]
