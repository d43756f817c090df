"""Turns a log file's bytes into lines of text, whatever they are packed and encoded in.

Compression is told by the first bytes, not by the file's name. UTF-8 comes first; other bytes
are given to charset-normalizer, and the encoding it finds is named to the person.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from charset_normalizer import from_bytes

#: A line of more characters than this is cut into several.
LONGEST_LINE = 5_000_000

_PROBE_BYTES = 65_536
#: How much of a file is read in search of bytes that are not UTF-8.
_SEARCHED_BYTES = 64_000_000
#: As much of what is not UTF-8 goes to charset-normalizer.
_SAMPLE_BYTES = 16_384
_CHUNK = 262_144

#: What the operating system and a damaged archive raise.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)

_PACKED = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ\x00", "xz", lzma.open),
)
#: First bytes of files that are no logs, and what to do.
_REFUSED = (
    (b"\x28\xb5\x2f\xfd", "is packed with zstd: unpack it first, with zstd -d"),
    (b"\x04\x22\x4d\x18", "is packed with lz4: unpack it first, with lz4 -d"),
    (b"PK\x03\x04", "is a zip archive: unpack it first, and give one of its files"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first, and give one of its files"),
    (b"LPKSHHRH", "is a journal of systemd: export it first, with journalctl --file=... -o json"),
    (b"ElfFile\x00", "is a Windows event log: export it first, with Get-WinEvent | ConvertTo-Json"),
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: What logs are written in where it is not UTF-8.
_CANDIDATES = ["cp949", "shift_jis", "euc_jp", "gb18030", "big5", "cp1251", "cp1252"]
_NAMES = {
    "utf-8": "UTF-8",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32",
    "cp949": "EUC-KR",
    "shift_jis": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "Big5",
    "cp1252": "Latin-1",
    "cp1251": "Windows-1251",
}
_NEWLINES = re.compile(r"\r\n|\r|\n")
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\x0b\x0c\x1b")


class LogFileError(ValueError):
    """The file can't be read as a log; the text says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """How a file is written."""

    #: Python's name; lines that are UTF-8 are read as UTF-8 beside any single-byte one.
    codec: str
    #: As people call it, with the compression: "UTF-16", "EUC-KR (guessed), gzip".
    name: str


def inspect(path: Path) -> Encoded:
    """Tell compression and encoding.

    Raises:
        LogFileError: the file is missing, no regular file, unreadable, empty, or not a text.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise LogFileError(f"{path} is a folder, not a log file.")
        if not stat.S_ISREG(kind):
            raise LogFileError(
                f"{path} is a pipe or a device, which can be read only once: save what comes out "
                "of it to a file first."
            )
        return _inspect(path)
    except FileNotFoundError as error:
        raise LogFileError(f"{path} does not exist.") from error
    except UNREADABLE as error:
        raise LogFileError(f"{path} can't be read: {_reason(error)}.") from error


def lines_of(path: Path, encoded: Encoded) -> Iterator[str]:
    """Yield the lines without their ends; NULs, which a rotation leaves behind, are taken out.

    Raises:
        LogFileError: the file can't be read to its end.
    """
    try:
        with _open(path)[0] as stream:
            wide = encoded.codec.startswith(("utf-16", "utf-32"))
            for line in _wide_lines(stream, encoded.codec) if wide else _lines(stream, encoded):
                yield line.replace("\x00", "").removeprefix("\ufeff")
    except UNREADABLE as error:
        raise LogFileError(f"{path} can't be read to its end: {_reason(error)}.") from error


def _open(path: Path) -> tuple[IO[bytes], str]:
    with path.open("rb") as file:
        first = file.read(8)
    for magic, name, opener in _PACKED:
        if first.startswith(magic):
            return cast(IO[bytes], opener(path)), name
    return path.open("rb"), ""


def _inspect(path: Path) -> Encoded:
    stream, packing = _open(path)
    with stream:
        probe = stream.read(_PROBE_BYTES)
        for magic, sentence in _REFUSED:
            if probe.startswith(magic):
                raise LogFileError(f"{path} {sentence}.")
        if probe[257:262] == b"ustar":
            raise LogFileError(f"{path} is a tar archive: unpack it first, and give one file.")
        # A file that was truncated while a program went on writing begins with a hole of NULs.
        while probe and not probe.strip(b"\x00"):
            probe = stream.read(_PROBE_BYTES)
        if not probe.strip():
            raise LogFileError(f"{path} is empty.")
        codec = _by_mark(probe) or _wide_without_mark(probe)
        guessed = False
        if codec is None:
            text = probe.lstrip(b"\x00")
            if sum(byte in _CONTROL for byte in text) > 0.1 * len(text):
                raise LogFileError(f"{path} is a binary file, not a log.")
            codec, guessed = _narrow(probe, stream)
    name = _NAMES.get(codec, codec) + (" (guessed)" if guessed else "")
    return Encoded(codec, f"{name}, {packing}" if packing else name)


def _by_mark(probe: bytes) -> str | None:
    return next((codec for mark, codec in _BOMS if probe.startswith(mark)), None)


def _wide_without_mark(probe: bytes) -> str | None:
    """UTF-16 and UTF-32 give themselves away by where the NULs stand."""
    even = len(probe) - len(probe) % 4
    zeros = [probe[place:even:4].count(0) for place in range(4)]
    each = even // 4
    if each and zeros[2] == zeros[3] == each and not zeros[0]:
        return "utf-32-le"
    if each and zeros[0] == zeros[1] == each and not zeros[3]:
        return "utf-32-be"
    # Korean text has fewer NULs than English, but its spaces and digits still have them.
    low, high = probe[0::2].count(0), probe[1::2].count(0)
    enough = 0.1 * len(probe)
    if not low and high > enough:
        return "utf-16-le"
    return "utf-16-be" if not high and low > enough else None


def _narrow(probe: bytes, rest: IO[bytes]) -> tuple[str, bool]:
    """UTF-8, or what charset-normalizer makes of the lines that are not."""
    sample = b""
    seen = 0
    pending = b""
    while probe and seen < _SEARCHED_BYTES and len(sample) < _SAMPLE_BYTES:
        seen += len(probe)
        whole, newline, pending = (pending + probe).rpartition(b"\n")
        if not newline:
            whole, pending = pending, b""
        for line in whole.split(b"\n") if not whole.isascii() else ():
            if not line.isascii() and not _is_utf8(line) and len(sample) < _SAMPLE_BYTES:
                sample += line + b"\n"
        probe = rest.read(_CHUNK)
    if pending and not _is_utf8(pending):
        sample += pending
    if not sample:
        return "utf-8", False
    if _is_korean(sample):
        return "cp949", True
    best = from_bytes(sample, cp_isolation=_CANDIDATES, threshold=0.6).best()
    return (best.encoding if best else "cp1252"), True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_korean(sample: bytes) -> bool:
    """Whether EUC-KR makes Korean syllables of nearly all of it, which it does of nothing else.

    A few words are too little for statistics.
    """
    try:
        letters = [letter for letter in sample.decode("cp949") if letter > "\x7f"]
    except UnicodeDecodeError:
        return False
    return sum("가" <= letter <= "힣" for letter in letters) > 0.9 * len(letters)


def _lines(stream: IO[bytes], encoded: Encoded) -> Iterator[str]:
    # A limit for one line, too: readline() gives up there and goes on with the rest.
    while raw := stream.readline(LONGEST_LINE):
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            line = raw.decode(encoded.codec, errors="replace")
        line = line.removesuffix("\n").removesuffix("\r")
        yield from line.split("\r") if "\r" in line else (line,)


def _wide_lines(stream: IO[bytes], codec: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    pending = ""
    while chunk := stream.read(_CHUNK):
        pieces = _NEWLINES.split(pending + decoder.decode(chunk))
        pending = pieces.pop()
        # The two halves of one line end may lie in two chunks.
        if len(pending) > LONGEST_LINE:
            pieces.append(pending)
            pending = ""
        yield from pieces
    yield pending + decoder.decode(b"", final=True)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
