"""Prints docs/settings.md (`make settings-page`): every setting with its default and bounds, as the
class that reads them has them, and what `.env.example` says of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from enrich.settings import Settings

EXAMPLE = Path(__file__).parent.parent / ".env.example"

_INTRODUCTION = """\
# Settings

Each is a variable of the environment, or a line of `.env` in the folder where a program is started.
The environment wins, and an empty value means the default. `.env.example` is the same list, to be
copied. A wrong value ends the start with a sentence that names it.
"""

_SECTION = re.compile(r"# ---- (.*)")
_VARIABLE = re.compile(r"#?([A-Z_]+)=(.*)")


@dataclass
class Section:
    """Settings that stand together, under what is said of each."""

    title: str
    groups: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)


def sections(lines: list[str]) -> Iterator[Section]:
    """What stands in `.env.example`, from its first section on."""
    section: Section | None = None
    told: list[str] = []
    for number, line in enumerate(lines):
        heading, variable = _SECTION.fullmatch(line), _VARIABLE.fullmatch(line)
        if heading and number and _SECTION.fullmatch(lines[number - 1]) and section:
            section.title += f" {heading[1]}"
        elif heading:
            if section:
                yield section
            section, told = Section(heading[1]), []
        elif section is None:
            continue
        elif variable:
            if told or not section.groups:
                section.groups.append((" ".join(told), []))
                told = []
            section.groups[-1][1].append((variable[1], variable[2]))
        elif line.startswith("# "):
            told.append(line[2:])
    if section:
        yield section


def form_of(info: FieldInfo) -> str:
    """What a value may be, in a few words."""
    kind = info.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{one}`" for one in get_args(kind) if one)
    words: dict[Any, str] = {
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        SecretStr: "secret",
    }
    told = words.get(kind, "list, by commas" if get_origin(kind) is tuple else "text")
    limits = [
        f"{sign} {getattr(bound, name):,g}"
        for bound in info.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(bound, name)
    ]
    return ", ".join([told, *limits])


def page() -> str:
    fields = {name.upper(): info for name, info in Settings.model_fields.items()}
    written = [_INTRODUCTION]
    for section in sections(EXAMPLE.read_text(encoding="utf-8").splitlines()):
        written += [
            f"## {section.title}",
            "",
            "| variable | default | value | |",
            "|---|---|---|---|",
        ]
        for told, variables in section.groups:
            for place, (name, default) in enumerate(variables):
                form = form_of(fields[name]) if name in fields else ""
                shown = f"`{default}`" if default else ""
                meaning = told.replace("|", r"\|") if place == 0 else ""
                written.append(f"| `{name}` | {shown} | {form} | {meaning} |")
        written.append("")
    return "\n".join(written).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
