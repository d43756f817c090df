"""`python -m enrich consume`: the consumer as a process, from its first look to its last commit."""

from __future__ import annotations

import logging
import signal
from types import FrameType

from enrich import wiring
from enrich.errors import EnrichError, SettingsError
from enrich.settings import Settings
from enrich.worker.alive_file import AliveFile
from enrich.worker.logging import configure_logging, last_words
from enrich.worker.start import end_if_impossible

log = logging.getLogger(__name__)


def consume(settings: Settings) -> int:
    """Consume until SIGTERM or SIGINT; the exit status.

    Raises:
        SettingsError: a setting is missing or wrong, or the log file cannot be written.
        EnrichError: Kafka is away at the start, or refuses this consumer.
    """
    try:
        configure_logging(settings.enrich_log_file, settings.enrich_log_format)
    except OSError as error:
        raise SettingsError(
            f"ENRICH_LOG_FILE: {settings.enrich_log_file} cannot be written ({error.strerror})"
        ) from None
    alive = AliveFile(settings.enrich_alive_file)
    alive.begin()
    end_if_impossible(settings, parts=True)
    try:
        _run(settings, alive)
    except EnrichError as error:
        last_words.error("%s", error)
        raise
    return 0


def _run(settings: Settings, alive: AliveFile) -> None:
    from enrich.realtime.broker import Broker

    consumer = wiring.build_consumer(settings, alive.touch)
    broker = Broker(settings, consumer)
    for topic in broker.look():
        log.warning("topic %s is not there yet; it is waited for", topic)

    def stop(number: int, frame: FrameType | None) -> None:
        consumer.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        consumer.run(broker)
    finally:
        alive.remove()
