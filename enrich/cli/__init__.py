"""The command line, `python -m enrich …`: options in, one call, an exit status out.

Exit statuses: 0 done, 1 done with failures, 2 bad use or settings, 3 a server cannot be reached or
refuses. Each command's work is in a room of its own, imported when it is called, so that `status`
does not wait for Celery's or OpenAI's clients.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from enrich.cli import plain_output, screen
from enrich.errors import EnrichError, SettingsError
from enrich.settings import load_settings, of_utf8


class _Statuses(TyperGroup):
    """Turns expected failures into one sentence and a status."""

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal that knows no ✓ gets another sign, not a traceback.
                stream.reconfigure(errors=plain_output.NAME)
        words = [of_utf8(word) for word in (sys.argv[1:] if args is None else args)]
        if any(re.search("[\ud800-\udfff]", word) for word in words):
            # A half of a character would reach a server as another one.
            text = "the command has words that are neither UTF-8 nor of the locale's encoding"
            screen.line(screen.err(), "bad", text)
            sys.exit(2)
        return super().main(words, *more, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for sentence in str(error).split("; "):
                screen.line(screen.err(), "bad", sentence)
            raise typer.Exit(2) from None
        except EnrichError as error:
            screen.line(screen.err(), "bad", str(error))
            raise typer.Exit(3) from None


app = typer.Typer(
    cls=_Statuses,
    help="Gives every ERROR log in OpenSearch its embedding vector.",
    epilog=(
        "Exit status: 0 done; 1 done with failures, or something has to be changed; 2 bad use or "
        "settings; 3 a server cannot be reached or refuses, or nothing works. "
        "Begin with: python -m enrich check"
    ),
    no_args_is_help=True,
    # A traceback with its variables would show secrets and log text.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _index_names(value: str | None) -> str | None:
    if value is not None and (
        not value.strip() or set(value) & set(' "\\/?#<>|%') or value[0] in "-_+"
    ):
        raise typer.BadParameter("give names or patterns of indices, separated by commas")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Index = Annotated[
    str | None,
    typer.Option(
        help="Only these indices: names or patterns, separated by commas.", callback=_index_names
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from enrich import __version__

        typer.echo(f"enrich {__version__}")
        raise typer.Exit


@app.callback()
def _prepare(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Which version this is.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    # Clients log what they do, addresses and all; a command says what matters by itself.
    logging.getLogger().addHandler(logging.NullHandler())
    from enrich.worker.installation import other_version

    if sentence := other_version():
        screen.line(screen.err(), "warn", sentence)


@app.command(epilog="Example: python -m enrich check")
def check(
    full: Annotated[bool, typer.Option("--full", help="Then really run one cycle.")] = False,
    yes: Yes = False,
) -> None:
    """Try everything a run needs, without changing a document."""
    from enrich.cli.check import Check

    settings = load_settings()
    console = screen.out()
    looked = Check(settings, console)
    looked.all()
    if not full:
        raise typer.Exit(looked.status)
    if looked.status == 3:
        screen.line(screen.err(), "bad", "no cycle was run: change what is marked ✗ first")
        raise typer.Exit(3)
    cost = f", for about {screen.dollars(looked.cost)}" if looked.cost else ""
    if not yes and not _confirmed(f"Run one cycle now, on {looked.pending_told} logs{cost}?"):
        raise typer.Exit(looked.status)
    from enrich.cli import runs

    raise typer.Exit(max(looked.status, runs.begin(settings, wait=True, as_json=False)))


@app.command(epilog="Example: python -m enrich plan --index 'shop_*' --days 30")
def plan(
    index: Index = None,
    days: Annotated[
        float | None,
        typer.Option(help="Only logs that are not older.", min=0.001, max=36_500),
    ] = None,
    as_json: Json = False,
) -> None:
    """What the backlog will cost: texts, tokens, money, hours, disk. Buys nothing."""
    from enrich.cli.plan import show

    raise typer.Exit(show(load_settings(), index, days, as_json=as_json))


@app.command(epilog="Example: python -m enrich run --wait")
def run(
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="First do what `confirm` does.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run now, through the workers."""
    from enrich.cli import runs

    settings = load_settings()
    if confirm:
        from enrich.cli.confirm import confirm as confirm_first

        said = screen.err() if as_json else screen.out()
        status = confirm_first(settings, said, None, lambda question: yes or _confirmed(question))
        if status is not None:
            raise typer.Exit(status)
    raise typer.Exit(runs.begin(settings, wait=wait, as_json=as_json))


@app.command(epilog="Example: python -m enrich confirm --up-to 5")
def confirm(
    up_to: Annotated[
        float | None,
        typer.Option("--up-to", help="This sum in USD, not the plan's.", min=0, max=1e9),
    ] = None,
    yes: Yes = False,
) -> None:
    """Let runs spend what the backlog costs, where that is above ENRICH_CONFIRM_ABOVE_USD."""
    from enrich.cli.confirm import confirm as begin

    status = begin(
        load_settings(), screen.out(), up_to, lambda question: yes or _confirmed(question)
    )
    raise typer.Exit(status or 0)


@app.command(epilog="Example: python -m enrich status --watch")
def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Anew every five seconds, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Totals, logs with and without a vector, the active run, the last runs."""
    from enrich.cli.status import show
    from enrich.cli.status import watch as show_for_ever

    if watch:
        raise typer.Exit(show_for_ever(load_settings(), as_json=as_json))
    raise typer.Exit(show(load_settings(), as_json=as_json))


@app.command(epilog="Example: python -m enrich workers --json")
def workers(as_json: Json = False) -> None:
    """Who works, since when, and at what."""
    from enrich.cli.workers import show

    raise typer.Exit(show(load_settings(), as_json=as_json))


runs_app = typer.Typer(invoke_without_command=True, help="All runs that were recorded.")
app.add_typer(runs_app, name="runs")


@runs_app.callback(epilog="Example: python -m enrich runs --count 50 --busy")
def runs_(
    context: typer.Context,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many.")] = 20,
    before: Annotated[
        str, typer.Option(help="Only those older than this run: its id or number.")
    ] = "",
    busy: Annotated[
        bool, typer.Option("--busy", help="Without those that ended well and found nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """All runs that were recorded, the newest first; `runs show` shows one."""
    if context.invoked_subcommand is not None:
        return
    from enrich.cli.history import show_runs

    raise typer.Exit(show_runs(load_settings(), count, before, busy=busy, as_json=as_json))


@runs_app.command("show", epilog="Example: python -m enrich runs show 42 --json")
def runs_show(
    run: Annotated[str, typer.Argument(help="Its id, or its number.")], as_json: Json = False
) -> None:
    """One run: what it did, what it cost, why it left what it left."""
    from enrich.cli.history import show_run

    raise typer.Exit(show_run(load_settings(), run, as_json=as_json))


@app.command(epilog="Example: python -m enrich metrics --port 9464")
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 9464,
    address: Annotated[str, typer.Option(help="An address to listen on.")] = "127.0.0.1",
) -> None:
    """Offer Prometheus' metrics over HTTP without Flower, until it is stopped."""
    from enrich.cli.metrics import metrics as begin

    raise typer.Exit(begin(load_settings(), address, port))


@app.command()
def pause() -> None:
    """Take up no more logs until `resume`; what is under way is finished."""
    from enrich import wiring

    wiring.build_ledger(load_settings()).controls.pause()
    screen.line(screen.out(), "ok", "paused: chunks under way are finished, no new ones are made")


@app.command()
def resume() -> None:
    """Go on after `pause`, with the active run too."""
    from enrich.cli import runs

    raise typer.Exit(runs.resume(load_settings()))


@app.command()
def cancel() -> None:
    """End the active run; its open work is left for the next."""
    from enrich.cli import runs

    raise typer.Exit(runs.cancel(load_settings()))


@app.command(epilog="Example: python -m enrich failures --index 'shop_*'")
def failures(index: Index = None, as_json: Json = False) -> None:
    """Logs that cannot be embedded as they are, and why."""
    from enrich.cli.failures import show

    raise typer.Exit(show(load_settings(), index, as_json=as_json))


@app.command(epilog="Example: python -m enrich retry-failed --index shop_2026_11")
def retry_failed(index: Index = None, yes: Yes = False) -> None:
    """Put logs that are marked failed back in line."""
    from enrich.cli.failures import retry

    raise typer.Exit(retry(load_settings(), index, confirmed=lambda q: yes or _confirmed(q)))


@app.command(epilog="Example: python -m enrich search payment declined --index 'shop_*' -k 5")
def search(
    words: Annotated[
        list[str], typer.Argument(help="What to search for, in any words; quotes are not needed.")
    ],
    index: Index = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="How many.")] = 10,
    as_json: Json = False,
) -> None:
    """The ERROR logs nearest in meaning to some words."""
    from enrich.cli.search import show

    raise typer.Exit(show(load_settings(), " ".join(words), index, k, as_json=as_json))


@app.command(
    epilog="Example: python -m enrich experiment 3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d --hours 168"
)
def experiment(
    project: Annotated[
        str, typer.Argument(help="The id that the project's indices are called by.")
    ],
    hours: Annotated[int, typer.Option(min=1, max=168, help="Of the last so many hours.")] = 24,
    k: Annotated[
        str, typer.Option("--k", "-k", help="Up to 10 numbers from 1 to 10,000, with commas.")
    ] = "100,500,1000",
    until: Annotated[
        str, typer.Option(help="When the period ends, such as 2026-11-28T00:00; now if left out.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the same logs again.", max=2**31 - 1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Whether k logs with vectors can stand in for an aggregation over kinds of errors."""
    from enrich.cli.experiment import show

    raise typer.Exit(
        show(load_settings(), project, hours, k, until=until, seed=seed, as_json=as_json)
    )


@app.command(epilog="Example: python -m enrich template --apply")
def template(
    apply: Annotated[bool, typer.Option("--apply", help="Put it into OpenSearch.")] = False,
    name: Annotated[str, typer.Option(help="Its name there.")] = "enrich-logs",
    data_streams: Annotated[
        bool, typer.Option("--data-streams", help="Print the one for data streams instead.")
    ] = False,
) -> None:
    """The index template that gives new indices a right log_vector."""
    from enrich.cli.template import put, show

    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise typer.BadParameter("use letters, digits, '-', '_' and '.'", param_hint="--name")
    settings = load_settings()
    if apply:
        put(settings, name)
    else:
        show(settings, data_streams=data_streams)


@app.command(epilog="Example: python -m enrich reindex --index shop_2026_11 --dry-run")
def reindex(
    index: Annotated[str, typer.Option(help="These indices, by their names, separated by commas.")],
    to: Annotated[str, typer.Option(help="The name of the copy, where one index is given.")] = "",
    remove_old: Annotated[
        bool,
        typer.Option(
            "--remove-old", help="Then delete the old index; its name becomes an alias of the copy."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Replace indices that take no vectors by copies that do; goes on where it was cut off."""
    from enrich.cli.reindex import replace

    names = [name.strip() for name in index.split(",") if name.strip()]
    _index_names(index)
    if any("*" in name for name in names):
        raise typer.BadParameter("give names, no patterns", param_hint="--index")
    if to and len(names) != 1:
        raise typer.BadParameter("give one index with it", param_hint="--to")
    raise typer.Exit(
        replace(
            load_settings(),
            names,
            to,
            remove_old=remove_old,
            dry_run=dry_run,
            confirmed=lambda question: yes or _confirmed(question),
        )
    )


@app.command(epilog="Example: python -m enrich consume")
def consume() -> None:
    """Give logs of a Kafka topic their vectors as they are produced, until it is stopped."""
    from enrich.cli.consume import consume as begin

    raise typer.Exit(begin(load_settings()))


@app.command(epilog="Example: python -m enrich serve")
def serve() -> None:
    """Offer vectors and search over HTTP, until it is stopped."""
    from enrich.cli.serve import serve as begin

    raise typer.Exit(begin(load_settings()))


@app.command(epilog="Example: python -m enrich api-key dashboard")
def api_key(
    name: Annotated[str, typer.Argument(help="Who gets it: letters, digits, '.', '_' and '-'.")],
) -> None:
    """Make a key for the HTTP service: the key once, and its entry for ENRICH_API_KEYS_FILE."""
    from enrich.cli.serve import new_key

    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise typer.BadParameter("use letters, digits, '.', '_' and '-'", param_hint="NAME")
    key, entry = new_key(name)
    screen.line(screen.err(), "ok", "the key is shown this once, and stored nowhere")
    typer.echo(key)
    screen.line(screen.err(), "ok", "put this into the list of ENRICH_API_KEYS_FILE:")
    typer.echo(entry)


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        screen.line(screen.err(), "bad", "there is no terminal to ask on: give --yes")
        raise typer.Exit(2)
    return typer.confirm(question)
