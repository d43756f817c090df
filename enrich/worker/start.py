"""Whether a worker or beat can do anything at all, looked at before it begins.

A server that is away is waited for, as in an outage later. What only an operator can change ends
the start with one sentence: a file of TLS that is not there, a proxy that is none, a Redis that is
too old or refuses its user.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from enrich.errors import EnrichError, Halt, SettingsError, TransientError
from enrich.worker.alive_file import AliveFile

if TYPE_CHECKING:
    from enrich.settings import Settings

log = logging.getLogger(__name__)

#: Short: a Redis that is away is the broker's to wait for.
TIMEOUT_SECONDS = 5.0

BAD_SETTINGS, REFUSED = 2, 3


def end_if_impossible(settings: Settings, *, parts: bool) -> None:
    """Ends the process with one sentence, and status 2 or 3 as a command would.

    Args:
        parts: build what a task works with, too.
    """
    try:
        AliveFile(settings.enrich_alive_file).begin()
        if parts:
            _try_parts(settings)
        _look_at_redis(settings)
    except SettingsError as error:
        _end(error, BAD_SETTINGS)
    except Halt as error:
        _end(error, REFUSED)
    except TransientError as error:
        log.warning("%s; waiting for it", error)


def _try_parts(settings: Settings) -> None:
    from enrich import tracing, wiring

    wiring.start_tracing(settings)
    tracing.close()
    store = wiring.build_store(settings)
    try:
        if len(settings.opensearch_nodes) > 1:
            # Nodes of two clusters end the start; one that is away does not.
            for url, trouble in store.connection.nodes():
                if trouble:
                    log.warning("node %s is left out until it answers: %s", url, trouble)
    finally:
        store.close()
    wiring.build_embedder(settings).close()


def _look_at_redis(settings: Settings) -> None:
    from enrich.ledger import server
    from enrich.redis_client import connect

    for url in dict.fromkeys((settings.redis_url.get_secret_value(), settings.vector_cache_url)):
        client = connect(url, timeout=TIMEOUT_SECONDS)
        try:
            server.look(client)
            if url == settings.redis_url.get_secret_value():
                server.try_rights(client, settings.enrich_redis_prefix)
        finally:
            client.close()


def _end(error: EnrichError, status: int) -> None:
    print(f"enrich: {error}", file=sys.stderr)
    sys.exit(status)
