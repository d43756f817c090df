"""What the security plugin needs before a node with it starts: certificates, settings, a password.

The plugin's own demonstration configuration is used as it is, with its administrator; the
certificates are made on the spot, since the plugin takes none without a certain name in it.
"""

from __future__ import annotations

from pathlib import Path

from dev.certificates import write_authority, write_signed
from dev.java_packages import plugin_folder
from dev.opensearch_releases import SECURITY, Release

#: The administrator of the plugin's demonstration configuration.
ADMIN = ("admin", "admin")

#: By this registered identifier among its names a certificate says that it is a node's.
#: https://docs.opensearch.org/2.19/security/configuration/tls/ ("Node certificates")
_NODE_IDENTIFIER = "1.2.3.4.5.5"

AUTHORITY = "authority.pem"
_CERTIFICATE = "node.pem"
_KEY = "node.key"


def write_node_certificates(folder: Path) -> Path:
    """Make an authority and a node's certificate in `folder`; returns the authority's file."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = write_authority(folder / AUTHORITY)
    write_signed(
        authority,
        folder / _CERTIFICATE,
        folder / _KEY,
        hosts=["localhost"],
        addresses=["127.0.0.1"],
        identifiers=[_NODE_IDENTIFIER],
    )
    return folder / AUTHORITY


def security_settings(folder: Path) -> dict[str, str]:
    """OpenSearch settings for a node whose certificates lie in `folder`."""
    folder = folder.resolve()
    settings = {
        "plugins.security.ssl.http.enabled": "true",
        "plugins.security.ssl.transport.enforce_hostname_verification": "false",
        "plugins.security.allow_default_init_securityindex": "true",
        "plugins.security.restapi.roles_enabled": "all_access,security_rest_api_access",
        # Each change of rights has every password hashed anew; here none is a secret.
        "plugins.security.password.hashing.bcrypt.rounds": "4",
    }
    for layer in ("http", "transport"):
        prefix = f"plugins.security.ssl.{layer}"
        settings[f"{prefix}.pemcert_filepath"] = str(folder / _CERTIFICATE)
        settings[f"{prefix}.pemkey_filepath"] = str(folder / _KEY)
        settings[f"{prefix}.pemtrustedcas_filepath"] = str(folder / AUTHORITY)
    return settings


def security_options(release: Release) -> tuple[str, ...]:
    """Options of the JVM: where the plugin finds the configuration that it begins with."""
    plugin = next(each for each in release.plugins if each.name == SECURITY)
    return (f"-Dsecurity.default_init.dir={plugin_folder(plugin) / 'config'}",)
