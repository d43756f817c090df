"""`python -m enrich serve`: the HTTP service as a process; and keys for those who use it."""

from __future__ import annotations

import json
import secrets
import signal

from prometheus_client import CollectorRegistry, generate_latest

from enrich import wiring
from enrich.api.keys import new_entry, read_keys
from enrich.errors import SettingsError, package_missing
from enrich.setting_forms import loopback
from enrich.settings import Settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import build_reader
from enrich.worker.logging import configure_logging
from enrich.worker.start import end_if_impossible

#: For so long requests that are under way are finished at the end, and connections that are idle
#: are kept.
GRACE_SECONDS, IDLE_SECONDS = 10, 15

#: Files and connections that the process may have open, where the system lets it.
MOST_OPEN = 65_536


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Raises:
        SettingsError: a setting is missing or wrong, or a package is.
    """
    try:
        import uvicorn

        from enrich.api.app import build_asgi
        from enrich.api.connections import PunctualProtocol
    except ImportError:
        raise package_missing("the service needs fastapi and uvicorn", "api") from None
    keys = read_keys(settings.enrich_api_keys_file)
    if settings.enrich_api_address not in loopback.NAMES and not keys.by_digest:
        raise SettingsError(
            f"ENRICH_API_ADDRESS={settings.enrich_api_address} is beyond loopback: set "
            "ENRICH_API_KEYS_FILE, so that not everybody spends your money"
        )
    try:
        configure_logging(settings.enrich_log_file, settings.enrich_log_format)
    except OSError as error:
        raise SettingsError(
            f"ENRICH_LOG_FILE: {settings.enrich_log_file} cannot be written ({error.strerror})"
        ) from None
    end_if_impossible(settings, parts=True)
    _open_many()
    registry = CollectorRegistry()
    registry.register(EnrichCollector(build_reader(settings).read))
    parts = wiring.build_service(settings, keys, lambda: generate_latest(registry))
    server = uvicorn.Server(
        uvicorn.Config(
            build_asgi(parts),
            http=PunctualProtocol,
            host=settings.enrich_api_address,
            port=settings.enrich_api_port,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn ends in order on these, and raises them once more when it has.
        signal.signal(number, lambda number, frame: None)
    server.run()
    return 0 if server.started else 3


def _open_many() -> None:
    """Systems let a program open a thousand files unless it asks for more: as many callers that
    say nothing would then keep it from its own servers."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def new_key(name: str) -> tuple[str, str]:
    """A new key, and its entry for ENRICH_API_KEYS_FILE."""
    key = f"enrich-{secrets.token_urlsafe(32)}"
    return key, json.dumps(new_entry(name, key))
