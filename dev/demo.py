"""The demo: the whole product on embedded services, from an empty checkout to a search by meaning.

Starts OpenSearch, Valkey and an embeddings server, loads logs, starts the Procfile's worker, beat
and Flower just as an operator would, watches the first cycle, and then checks every vector against
the embedding model by itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from opensearchpy import OpenSearch, helpers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dev.embedding_model import Model
from dev.failures import failures, ordinary
from dev.live_demo import LiveLogs, LiveLogsFailed, show
from dev.log_files import LogFileError, Summary, read_logs, summarize
from dev.sample_logs import SampleLog, generate, project_with_most_logs
from dev.service import Service, ServiceFailed
from dev.service_demo import ServiceDemo
from dev.services import Services, free_ports
from enrich.cli.run_follower import Pace
from enrich.errors import SettingsError
from enrich.ledger import Ledger
from enrich.log_store import LogStore, index_template
from enrich.settings import Settings, load_settings
from enrich.status.report import read_status
from enrich.text.extract import text_of
from enrich.wiring import build_ledger

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".dev" / "demo"
DEFAULT_LOGS = 5000

#: What stands in for a paid service, under its own name, and at no cost.
MODEL_NAME = "wordllama"
MODEL_WORDS = (
    "of wordllama, a small static model that runs offline: it knows words rather than sentences, "
    "and little Korean; a real service finds more"
)
SETTINGS = FOLDER / "settings.env"
#: The wrapper that gives the command line the demo's settings.
WRAPPER = FOLDER / "enrich"
_QUESTION_CHARACTERS = 120

#: Asked at the end; built-in logs hold several kinds of this failure in other words.
QUESTION = "the database is locked by another transaction"

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(RuntimeError):
    """The demo did not do what it is there to show; the text says what."""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if every ERROR log has its right vector."""
    options = _parser().parse_args(argv)
    try:
        summary = _look_at(options.logs.absolute()) if options.logs else None
        logs = read_logs(options.logs.absolute()) if options.logs else None
        if options.count < 1:
            raise LogFileError(f"N must be 1 or more, not {options.count}.")
    except LogFileError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    try:
        with Services(
            FOLDER,
            say=_say,
            heap=_heap(options.count),
            kafka=options.all,
            fresh=True,
        ) as stack:
            question = _question(summary) if summary else QUESTION
            try:
                _demonstrate(stack, logs, options.count, question, options)
            finally:
                # Its addresses and key are void now; the wrapper stays, and says so.
                SETTINGS.unlink(missing_ok=True)
    except (ServiceFailed, DemoFailed, LiveLogsFailed, LogFileError, SettingsError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say("stopped before the proof; no process is left behind")
        return 130
    if not options.once:
        _say("stopped; no process is left behind")
    return 0


def _demonstrate(
    stack: Services,
    logs: Iterator[SampleLog] | None,
    count: int,
    question: str,
    options: argparse.Namespace,
) -> None:
    environment = stack.environment() | {
        "ENRICH_LOG_FILE": str(FOLDER / "periodic_enrichment.log"),
        "EMBEDDING_MODEL": MODEL_NAME,
        "ENRICH_PRICE_PER_MILLION_TOKENS": "0",
        "KAFKA_TOPIC": "application-logs",
        "ENRICH_INTERVAL_MINUTES": os.environ.get("ENRICH_INTERVAL_MINUTES", "1"),
    }
    os.environ.update(environment)
    # As the programs that are started there: a `.env` of the checkout is for other servers.
    os.chdir(FOLDER)
    settings = load_settings()
    client = OpenSearch(stack.opensearch.url, timeout=120)
    errors = _load(client, settings, logs or _sample_logs(count))
    if not errors:
        raise DemoFailed("the log file has no log of level ERROR, so there is nothing to enrich")

    (port,) = free_ports(1)
    processes = stack.spawn(
        "processes",
        [
            *(sys.executable, "-m", "honcho", "start", "-f", str(CHECKOUT / "Procfile")),
            # The consumer would end at once without a Kafka, and all others with it.
            *("worker", "beat", "flower"),
        ],
        env={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
            "FLOWER_PORT": str(port),
            **environment,
        },
        cwd=FOLDER,
    )
    _say("worker, beat and Flower are starting; the first cycle begins by itself")
    ledger, store = build_ledger(settings), LogStore(settings)
    _watch(ledger, store, processes, errors)
    for line in _cycles():
        _say(line)
    verified = _verify(client, settings)
    _say(f"{verified} of {errors} ERROR logs have exactly the vector of their own text")
    _search(question)
    _write_wrapper(environment)
    _say(f"OpenSearch: {stack.opensearch.url}/_cat/indices?v")
    _say(f"log: {FOLDER.relative_to(CHECKOUT) / 'periodic_enrichment.log'}")
    if verified != errors:
        raise DemoFailed(f"{errors - verified} ERROR logs have no right vector")
    live = None
    if options.all:
        service = ServiceDemo(stack, environment)
        live = LiveLogs(stack, client, settings, environment)
        show(live, settings, ledger, lambda keys: _verify(client, settings, keys), _say)
        # The statistics are those of the live logs: all others are of the months before.
        service.show(
            {"model": MODEL_NAME, "project_uuid": project_with_most_logs(), "q": question, "k": 3},
            _say,
        )
    if not options.once:
        _stay(port, processes, question, live)


# -- logs


def _sample_logs(count: int) -> Iterator[SampleLog]:
    # The two months before this one: none of their logs lies in the future.
    last = datetime.now(UTC).replace(day=1) - timedelta(days=1)
    before = last.replace(day=1) - timedelta(days=1)
    months = (f"{before:%Y-%m}", f"{last:%Y-%m}")
    return generate(count, failures=failures(), ordinary=ordinary(), months=months)


def _look_at(path: Path) -> Summary:
    """Say what the file holds before anything is started.

    Raises:
        LogFileError: it holds no log of level ERROR, or can't be read.
    """
    summary = summarize(path)
    _say(summary.sentence())
    if summary.example:
        _say(f"not understood, for example: {summary.example[:_QUESTION_CHARACTERS]!r}")
    if not summary.errors:
        raise LogFileError(
            f"{path} has no log of level ERROR, so there is nothing to enrich: give a file in "
            "which errors say so, as ERROR, fatal, [error], severity or a stack trace do."
        )
    return summary


def _question(summary: Summary) -> str:
    """The words of one of the file's own errors, without its numbers and its trace."""
    first = next((line for line in summary.error_text.splitlines() if line.strip()), "")
    bare = re.sub(r"\[[^\]]*\]|\{.*\}", " ", first)
    words = [word for word in bare.split() if not any(map(str.isdigit, word))]
    return " ".join(words)[:_QUESTION_CHARACTERS].strip() or first[:_QUESTION_CHARACTERS]


def _load(client: OpenSearch, settings: Settings, logs: Iterable[SampleLog]) -> int:
    """Index logs as an operator's shipper would; how many are of level ERROR."""
    template = index_template(settings.embedding_dimensions, settings.enrich_index_pattern)
    # One node has no place for a replica.
    template["template"]["settings"]["number_of_replicas"] = 0
    client.indices.put_index_template(name="enrich-logs", body=template)
    errors = total = 0
    indices: set[str] = set()

    def actions() -> Iterator[dict[str, object]]:
        nonlocal errors, total
        for log in logs:
            total += 1
            errors += log.document["level"] == "ERROR"
            indices.add(log.index)
            yield {"_index": log.index, "_id": log.id, "_source": log.document}

    try:
        helpers.bulk(
            client, actions(), chunk_size=1000, max_chunk_bytes=10_000_000, stats_only=True
        )
    except helpers.BulkIndexError as error:
        kinds = {each["index"]["error"]["type"] for each in error.errors}
        raise DemoFailed(
            f"OpenSearch refused logs of this file ({', '.join(sorted(kinds))}): does a field have "
            "numbers in some lines and words in others?"
        ) from None
    client.indices.refresh(index=settings.index_expression)
    _say(f"loaded {total} logs, {errors} of them ERROR, into {len(indices)} indices")
    return errors


# -- watching


def _watch(ledger: Ledger, store: LogStore, processes: Service, errors: int) -> None:
    """Show progress until no ERROR log is without an outcome and no run is active."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    last_said = -1
    pace = Pace()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("vectors", total=errors, rate="")
        while True:
            if not processes.running:
                raise DemoFailed(f"the processes ended by themselves; see {processes.log}")
            status = read_status(ledger, store)
            if status.backlog is not None:
                done = status.backlog.with_vector + status.backlog.failed
                pace.see(time.monotonic(), done)
                # Deferred logs are in neither count: they are left, and no progress.
                bar.update(task, completed=done, rate=_rate(pace, status.backlog.without_vector))
                if not console.is_terminal and done != last_said:
                    _say(f"vectors: {done} of {errors}")
                    last_said = done
                if status.last_runs and not status.active_run:
                    if status.backlog.without_vector == 0:
                        return
                    if status.last_runs[0].state == "halted":
                        raise DemoFailed(f"the run halted: {status.last_runs[0].halt_reason}")
                    for index, why in status.last_runs[0].skipped_indices.items():
                        raise DemoFailed(f"{index} was skipped: {why}")
            time.sleep(0.25)


def _rate(pace: Pace, left: int) -> str:
    """Vectors a second lately, and how long the logs that are left take at that rate."""
    if not left or pace.rate <= 0:
        return ""
    rate = f"{pace.rate:.{0 if pace.rate >= 10 else 1}f}/s"
    return f"{rate}, {left / pace.rate:.0f} s left" if pace.steady else rate


def _cycles() -> list[str]:
    """The log's lines about cycles, each from its "Cycle #" on."""
    log = FOLDER / "periodic_enrichment.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    told = [line[line.index("Cycle #") :] for line in lines if "Cycle #" in line]
    # The demo's embeddings cost nothing, and a price would suggest that they do.
    return [re.sub(r", cost \$0\.0+(?=,|$)", "", line) for line in told]


def _stay(port: int, processes: Service, question: str, live: LiveLogs | None) -> None:
    """Leave everything running, live logs too, and show each further cycle, until Ctrl-C."""
    said = len(_cycles())
    wrapper = WRAPPER.relative_to(CHECKOUT)
    _say(f"the page: http://127.0.0.1:{port}/enrichment")
    _say("in another terminal, in this folder:")
    for words in (f"search {shlex.quote(question)}", "status", "check"):
        console.print(f"  {wrapper} {words}", markup=False)
    _say("Ctrl-C ends everything")
    with suppress(KeyboardInterrupt):
        while processes.running:
            if live is not None:
                live.turn()
            time.sleep(0.5)
            cycles = _cycles()
            for line in cycles[said:]:
                _say(line)
            said = len(cycles)
        raise DemoFailed(f"the processes ended by themselves; see {processes.log}")


# -- proof


def _verify(
    client: OpenSearch, settings: Settings, keys: Sequence[tuple[str, str]] | None = None
) -> int:
    """Compare every stored vector, value by value, with the model's own of that log's text.

    Args:
        keys: index and id of the logs that are meant; None for every ERROR log.
    """
    model = Model()
    right = 0
    known: dict[str, np.ndarray] = {}
    hits: Iterable[dict[str, Any]]
    if keys is None:
        query = {"query": {"term": {"level": "ERROR"}}}
        hits = helpers.scan(client, query, index=settings.index_expression, size=500)
    else:
        wanted_docs = [{"_index": index, "_id": id} for index, id in keys]
        hits = client.mget(body={"docs": wanted_docs})["docs"]
    for batch in _batches(hits, 500):
        texts = {hit["_id"]: text_of(hit["_source"]) for hit in batch}
        new = sorted(set(texts.values()) - known.keys())
        known |= dict(zip(new, model.embed(new), strict=True)) if new else {}
        for hit in batch:
            stored = hit["_source"].get("log_vector")
            wanted = known[texts[hit["_id"]]]
            right += stored is not None and np.array_equal(np.float32(stored), wanted)
    return right


def _batches(hits: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(hits)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _search(question: str) -> None:
    """Show a search by meaning through the product's own command line."""
    _say(f'search by meaning: "{question}"')
    _say(f"the vectors are {MODEL_WORDS}")
    answer = subprocess.run(
        [sys.executable, "-m", "enrich", "search", question, "--k", "5"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    if answer.returncode:
        raise DemoFailed("the search by meaning failed")


def _write_wrapper(environment: dict[str, str]) -> None:
    """A command line with the demo's settings; its key stands in a file of its owner alone."""
    SETTINGS.unlink(missing_ok=True)
    with os.fdopen(os.open(SETTINGS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        for name, value in environment.items():
            file.write(f"export {name}={shlex.quote(value)}\n")
    WRAPPER.write_text(
        "#!/bin/sh\n"
        "# The command line with the settings of the demo that runs.\n"
        f"if ! kill -0 {os.getpid()} 2>/dev/null || [ ! -f {shlex.quote(str(SETTINGS))} ]; then\n"
        '  echo "enrich: the demo is not running any more: start it with make demo" >&2\n'
        "  exit 1\n"
        "fi\n"
        f". {shlex.quote(str(SETTINGS))}\n"
        f"PYTHONPATH={shlex.quote(str(CHECKOUT))}\n"
        "export PYTHONPATH\n"
        f'exec {shlex.quote(sys.executable)} -m enrich "$@"\n'
    )
    WRAPPER.chmod(0o700)


def _say(line: str) -> None:
    console.print(f"demo: {line}", markup=False)


def _heap(count: int) -> str:
    return "512m" if count <= 50_000 else "2g"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the first cycle (ONCE=1)")
    parser.add_argument(
        "--all",
        action="store_true",
        help="Kafka, the consumer, live logs and the HTTP service, too (ALL=1)",
    )
    parser.add_argument("--logs", type=Path, help="a log file of your own (LOGS=file)")
    parser.add_argument("--count", type=int, default=DEFAULT_LOGS, help="logs to make (N=5000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
