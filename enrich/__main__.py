"""`python -m enrich …`: the command line, see enrich/cli."""

from __future__ import annotations

from enrich.cli import app


def main() -> None:
    """The command `enrich` of an installation."""
    app(prog_name="enrich")


if __name__ == "__main__":
    app(prog_name="python -m enrich")
