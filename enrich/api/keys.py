"""Who may ask: the keys of ENRICH_API_KEYS_FILE, each with a name, a hash, a budget and a rate.

The file holds no key, only SHA-256 of each, so that whoever reads it can use none of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from enrich.errors import SettingsError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One caller."""

    name: str
    #: Of the key, 64 hex digits.
    sha256: str
    #: 0: no limit of its own.
    usd_per_day: float = 0.0
    requests_per_minute: int = 0

    @property
    def payer(self) -> str:
        """As whom it pays, beside the projects."""
        return f"api:{self.name}"


#: Who asks where no key is needed.
NOBODY = Key(name="anonymous", sha256="")


@dataclass(frozen=True)
class Keys:
    """All of them; none lets everybody in."""

    by_digest: Mapping[str, Key]

    def holder(self, key: str) -> Key | None:
        """Whose key it is. Found by its hash, so that the time it takes tells nothing of others."""
        if not self.by_digest:
            return NOBODY
        return self.by_digest.get(hashlib.sha256(key.encode(errors="replace")).hexdigest())


def read_keys(path: str) -> Keys:
    """The keys of a file; none for an empty path.

    Raises SettingsError: it cannot be read, or is none.
    """
    if not path:
        return Keys({})
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"ENRICH_API_KEYS_FILE: {path} cannot be read ({error.strerror})"
        ) from None
    try:
        keys = msgspec.json.decode(content, type=list[Key])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SettingsError(
            f'ENRICH_API_KEYS_FILE: {path} must be a JSON list of {{"name": …, "sha256": …, '
            '"usd_per_day": …, "requests_per_minute": …}}; `python -m enrich api-key NAME` '
            "prints one"
        ) from None
    for key in keys:
        if not _NAME.fullmatch(key.name) or not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
            raise SettingsError(
                f"ENRICH_API_KEYS_FILE: {path}: a name has letters, digits, '.', '_' and '-', and "
                "sha256 is 64 hex digits in small letters"
            )
    if not keys or len({key.name for key in keys}) < len(keys):
        raise SettingsError(
            f"ENRICH_API_KEYS_FILE: {path} has no key, or two of one name: give each its own"
        )
    return Keys({key.sha256: key for key in keys})


def new_entry(name: str, key: str) -> dict[str, Any]:
    """What is put into the file for a new key."""
    return {
        "name": name,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "usd_per_day": 0,
        "requests_per_minute": 0,
    }
