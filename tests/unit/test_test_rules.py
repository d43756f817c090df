"""Rules for the tests themselves: no verdict hangs on when the tests were collected, or on who else
uses the machine's ports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))

#: Calls that read a clock: by the name that is called, `datetime.now` as well as `now`.
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "perf_counter", "gmtime"}


def at_collection(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: all but the bodies of functions, and a main program."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "__name__ == '__main__'":
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in [*child.decorator_list, *child.args.defaults, *child.args.kw_defaults]:
                if part is not None:
                    yield part
                    yield from at_collection(part)
        elif not isinstance(child, ast.Lambda):
            yield child
            yield from at_collection(child)


def clocks_read(source: str) -> list[int]:
    """Lines that read a clock when the module is imported."""
    return [
        node.lineno
        for node in at_collection(ast.parse(source))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in CLOCKS
    ]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_clock_is_read_when_tests_are_collected(path: Path) -> None:
    # A suite takes many minutes: what was "in two hours" at its start no longer is when it is
    # looked at.
    assert clocks_read(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "START = datetime.now(UTC)",
        "@mark.parametrize('at', [time.time() + 60])\ndef test(at): ...",
        "def test(at=datetime.today()): ...",
        "class Case:\n    since = time.monotonic()",
    ],
)
def test_a_clock_that_is_read_too_early_is_found(source: str) -> None:
    assert clocks_read(source)


def test_a_clock_inside_a_test_is_no_fault() -> None:
    assert not clocks_read("def test():\n    assert time.time() > 0\nlater = lambda: time.time()")


def ports_let_go(source: str) -> list[int]:
    """Lines of blocks that end with asking which port the system gave, and let it go with that.

    The system gives it to the next connection of anybody; some of them are too high for a server
    that needs a second one above its own.
    """
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.With) and "getsockname" in ast.unparse(node.body[-1])
    ]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_a_port_for_others_is_none_that_the_system_gives_away(path: Path) -> None:
    # dev.services.free_ports has those that it does not.
    assert ports_let_go(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "with socket.socket() as line:\n    line.bind(ANY)\n    port = line.getsockname()[1]\n",
        "with socket.create_server(ANY) as taken:\n    port = taken.getsockname()[1]\n",
    ],
)
def test_a_port_that_is_let_go_is_found(source: str) -> None:
    assert ports_let_go(source) == [1]
