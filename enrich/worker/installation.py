"""Where this copy of the program lies: in a checkout, or in an environment that a wheel was
installed into.

Celery asks for `celeryconfig` and `tasks` by these bare names, and looks for them in the working
directory first. In a checkout they lie beside enrich/, in a wheel inside it; here it is seen to
that a program has those of its own copy, whatever else has these names.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module, metadata
from pathlib import Path

import enrich

#: Of the wheel, see pyproject.toml.
DISTRIBUTION = "enrich-logs"

_PACKAGE = Path(enrich.__file__).resolve().parent


def top_level() -> Path:
    """The folder that has celeryconfig.py, flowerconfig.py and tasks/ of this copy."""
    inside = _PACKAGE / "installed"
    return inside if inside.is_dir() else _PACKAGE.parent


def import_own_modules() -> None:
    """Import `celeryconfig` and the package `tasks` of this copy, for all who ask by these names.

    Raises SystemExit, with a sentence on stderr, where celeryconfig.py does so for a wrong setting.
    """
    # Once they are imported the name is enough: Celery puts the working directory before all else
    # while it imports them by itself.
    sys.path.insert(0, str(top_level()))
    for name in ("celeryconfig", "tasks"):
        import_module(name)


def other_version(folder: Path | None = None) -> str:
    """A sentence if another version than this one is started by other commands here; else "".

    Args:
        folder: the working directory.
    """
    folder = (folder or Path.cwd()).resolve()
    mine = enrich.__version__
    if top_level() == _PACKAGE.parent:
        theirs = _installed()
        if theirs in ("", mine):
            return ""
        return (
            f"this is enrich {mine}, of the checkout in {_PACKAGE.parent}; enrich {theirs} is "
            "installed in this environment and runs in other folders: `pip install .` in the "
            f"checkout, or `pip uninstall {DISTRIBUTION}`"
        )
    theirs = _of_checkout(folder)
    if theirs in ("", mine):
        return ""
    return (
        f"this is enrich {mine}, as installed; `celery -A enrich` and `python -m enrich` take the "
        f"checkout in this folder, {theirs}: start them in another folder, or `pip install .` here"
    )


def _installed() -> str:
    """The version that a wheel brought into this environment, or ""."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return ""


def _of_checkout(folder: Path) -> str:
    """The version of the checkout in a folder, or ""."""
    if not (folder / "celeryconfig.py").is_file():
        return ""
    try:
        text = (folder / "enrich" / "__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.M)
    return found[1] if found else ""
