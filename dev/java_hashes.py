"""The recorded SHA-256 of every file that comes from the Java registry, and their check.

`python -m dev.java_hashes` records what lies in `.dev/java` after a change of versions; the
difference is then read and committed like any other change. What is recorded already must not
change: a published version never does.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("java_hashes.txt")


class HashMismatch(RuntimeError):
    """A file is not the one that was recorded, or was never recorded; the text says which."""


def recorded(record: Path = RECORD) -> dict[str, str]:
    """SHA-256 by path within the repository, such as `com/x/x/1.0/x-1.0.jar`."""
    lines = record.read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def verify(file: Path, repository: Path, known: dict[str, str]) -> None:
    """Raise HashMismatch unless the file is the recorded one."""
    name = file.relative_to(repository).as_posix()
    if name not in known:
        raise HashMismatch(
            f"{name} has no recorded hash: if its version was meant to change, record it with "
            "python -m dev.java_hashes."
        )
    if digest(file) != known[name]:
        raise HashMismatch(
            f"{name} is not the file that was recorded: the registry, or something between, has "
            "sent another. It was removed."
        )


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record(repository: Path, into: Path = RECORD) -> int:
    """Add the files of a repository to the record; how many are new.

    Raises:
        HashMismatch: a file differs from what was recorded.
    """
    known = recorded(into) if into.exists() else {}
    before = len(known)
    for file in sorted([*repository.rglob("*.jar"), *repository.rglob("*.zip")]):
        name = file.relative_to(repository).as_posix()
        found = digest(file)
        if known.setdefault(name, found) != found:
            raise HashMismatch(f"{name} differs from what was recorded: it is not to be trusted.")
    into.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)))
    return len(known) - before


if __name__ == "__main__":
    from dev.java_packages import CACHE

    try:
        print(f"{record(CACHE / 'repository')} new hashes in {RECORD.name}")
    except HashMismatch as error:
        sys.exit(f"java_hashes: {error}")
