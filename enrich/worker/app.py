"""The Celery app, as `celery -A enrich worker`, `beat` and `flower` load it.

A wrong setting ends the start here with one sentence. At start each process logs the settings it
runs with, secrets masked; see enrich/worker/scheduler.py for beat's ticks.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from celery import Celery
from celery.signals import (
    beat_init,
    celeryd_after_setup,
    celeryd_init,
    setup_logging,
    worker_shutting_down,
)

from enrich.errors import EnrichError, SettingsError
from enrich.flower.environment import controls_are_on, prepare_environment
from enrich.settings import Settings, load_settings, unknown_names
from enrich.worker import transport
from enrich.worker.alive_file import AliveFile
from enrich.worker.heartbeat import TIMEOUT_SECONDS, Heartbeat, note_beat
from enrich.worker.inspect import EnrichmentInfo
from enrich.worker.installation import import_own_modules, other_version, top_level
from enrich.worker.logging import configure_logging
from enrich.worker.start import end_if_impossible

log = logging.getLogger(__name__)


def _settings_or_exit() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        print(f"enrich: {error}", file=sys.stderr)
        sys.exit(2)


settings = _settings_or_exit()
transport.install()
import_own_modules()
app = Celery("enrich")
app.config_from_object("celeryconfig")
app.steps["worker"].add(EnrichmentInfo)
app.steps["consumer"].add(Heartbeat)
prepare_environment(top_level() / "flowerconfig.py")  # for `celery -A enrich flower`


@setup_logging.connect
def _configure_logging(loglevel: int | None = None, **_: Any) -> None:
    try:
        configure_logging(
            settings.enrich_log_file,
            settings.enrich_log_format,
            console_level=loglevel or logging.WARNING,
        )
    except OSError as error:
        print(
            f"enrich: ENRICH_LOG_FILE: {settings.enrich_log_file} cannot be written "
            f"({error.strerror}): name another file, or none",
            file=sys.stderr,
        )
        sys.exit(2)


@celeryd_init.connect
@beat_init.connect
def _restrict_remote_control(**_: Any) -> None:
    from celery.worker.control import Panel

    from enrich.worker.remote_control import restrict

    if not controls_are_on():
        restrict(Panel.data)


@celeryd_init.connect
def _before_the_pool(**_: Any) -> None:
    log_settings("worker")
    end_if_impossible(settings, parts=True)
    # Half a million objects of the libraries, which live as long as the process: without this the
    # collector looks at all of them again and again, and once more for each process that is made.
    gc.freeze()


@celeryd_after_setup.connect
def _say_if_processes_may_wait(instance: Any, **_: Any) -> None:
    # This worker's own; `check` looks at those of all.
    processes = max(instance.concurrency, instance.max_concurrency or 0)
    if advice := settings.too_few_chunks_for(processes):
        log.warning("%s", advice)


@celeryd_after_setup.connect
def _say_if_opensearch_is_too_old(**_: Any) -> None:
    # It goes on: the server may be upgraded meanwhile, and each run looks before it buys anything.
    from enrich.wiring import build_store

    store = build_store(settings)
    try:
        objection = store.version().objection
    except EnrichError as error:
        objection = f"which OpenSearch answers is not known yet: {error}"
    finally:
        store.close()
    if objection:
        log.warning("%s", objection)


@beat_init.connect
def _say_beats_settings(sender: Any, **_: Any) -> None:
    log_settings("beat")
    _note_that_beat_lives(sender.scheduler)
    end_if_impossible(settings, parts=False)


def _note_that_beat_lives(scheduler: Any) -> None:
    from enrich.wiring import quick_ledger

    ledger = quick_ledger(settings, TIMEOUT_SECONDS, second_try=True)
    alive_file = AliveFile(settings.enrich_alive_file)

    def note(within: float) -> None:
        alive_file.touch()
        note_beat(ledger, within)

    scheduler.note = note


@worker_shutting_down.connect
def _note_shutdown(**_: Any) -> None:
    # Chunks that lose their worker to a deploy must not be held against their logs.
    import socket

    from enrich.wiring import build_ledger

    try:
        build_ledger(settings).controls.note_shutdown(
            socket.gethostname(), settings.enrich_visibility_timeout_seconds
        )
    except EnrichError as error:
        log.warning("the shutdown was not recorded: %s", error)


def log_settings(program: str) -> None:
    """Say with which settings a program runs, secrets masked."""
    shown = " ".join(f"{name}={value}" for name, value in settings.redacted().items())
    logging.getLogger("enrich").info("%s settings: %s", program, shown)
    for sentence in unknown_names():
        log.warning("%s (in the environment)", sentence)
    if sentence := other_version():
        log.warning("%s", sentence)
