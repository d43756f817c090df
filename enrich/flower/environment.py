"""Gives `celery -A enrich flower` its configuration, wherever it is started from.

Flower reads options from variables named FLOWER_*, not from `.env`, and looks for flowerconfig.py
in the working directory. Not finding it, it would start without a word on every network interface
and without a password; so the file's place is told to it here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from dotenv import dotenv_values

from enrich.settings import of_utf8


def prepare_environment(config: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the FLOWER_* lines of `.env` and the place of flowerconfig.py; what is set, stays.

    Args:
        config: where flowerconfig.py is.
    """
    # An empty value means "not set", as it does for every other setting; Flower would end with a
    # stack trace where it expects a number.
    for name in [name for name, value in environment.items() if not value]:
        if name.startswith("FLOWER_"):
            del environment[name]
    for name, value in dotenv_values(".env").items():
        if name.startswith("FLOWER_") and value:
            environment.setdefault(name, value)
    for name, value in list(environment.items()):
        if name.startswith("FLOWER_") and not value.isascii():
            environment[name] = of_utf8(value)
    environment.setdefault("FLOWER_CONF", str(config))


def api_is_open(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether FLOWER_UNAUTHENTICATED_API would let everyone use Flower's API; what Flower may read
    as yes counts as yes."""
    told = environment.get("FLOWER_UNAUTHENTICATED_API", "").strip().lower()
    return told not in ("", "0", "false", "f", "no", "n", "off")


def controls_are_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether FLOWER_READ_ONLY, as Flower reads it, gives operators its buttons."""
    return environment.get("FLOWER_READ_ONLY", "true").lower() in ("false", "0", "f")
