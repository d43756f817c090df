"""What comes from the Java registry is used only if it is the very file that was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.java_hashes import HashMismatch, record, recorded, verify


def test_only_the_recorded_file_passes(tmp_path: Path) -> None:
    repository, into = tmp_path / "repository", tmp_path / "hashes.txt"
    jar = repository / "com" / "x" / "x-1.0.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"first")
    assert record(repository, into) == 1
    known = recorded(into)
    verify(jar, repository, known)

    jar.write_bytes(b"other")
    with pytest.raises(HashMismatch, match="is not the file that was recorded"):
        verify(jar, repository, known)
    with pytest.raises(HashMismatch, match="differs"):
        record(repository, into)
    new = jar.with_name("x-2.0.jar")
    new.write_bytes(b"new")
    with pytest.raises(HashMismatch, match="no recorded hash"):
        verify(new, repository, known)


def test_the_record_holds_hashes_of_jars_and_plugins() -> None:
    known = recorded()

    assert len(known) > 100
    assert all(len(digest) == 64 for digest in known.values())
    assert all(name.endswith((".jar", ".zip")) for name in known)
