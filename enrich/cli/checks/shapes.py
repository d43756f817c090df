"""`check`: logs that are there and that ENRICH_SCHEMA or ENRICH_LEVELS does not see."""

from __future__ import annotations

from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.screen import MAX_NAMED, few, plural
from enrich.log_store import LogStore
from enrich.schema import AUTO
from enrich.settings import Settings


def look_at(settings: Settings, store: LogStore, findings: Findings, seen: Seen) -> None:
    found = store.recognition.look()
    own = settings.enrich_level_field or settings.enrich_text_fields
    alone = not seen.pending and len(found.others) == 1 and not own
    for one in found.others:
        schema = one.shape.name if alone else AUTO
        like = "looks" if len(one.indices) == 1 else "look"
        findings.warn(
            f"{plural(len(one.indices), 'index')} {like} like {one.shape.title} "
            f"({one.fields}): ENRICH_SCHEMA={schema} finds {plural(one.logs, 'log')}"
            f"{'' if alone else ' more'} ({few(one.indices)})"
        )
    if names := found.unknown:
        likely = " or ".join(found.like_levels[:MAX_NAMED])
        hint = f" (perhaps {likely})" if likely else ""
        findings.warn(
            f"{plural(len(names), 'index')} {'has' if len(names) == 1 else 'have'} no field "
            f"that is known for a level, so that nothing is found in {few(names)}: set "
            f"ENRICH_LEVEL_FIELD{hint} and ENRICH_TEXT_FIELDS, or leave out what has no logs "
            "by ENRICH_EXCLUDE_INDICES"
        )
    if logs := found.spelt_otherwise:
        levels = ",".join((*settings.enrich_levels, *found.spellings))
        findings.warn(
            f"{plural(logs, 'log')} more {'has its' if logs == 1 else 'have their'} level "
            f"spelt {' or '.join(found.spellings)}: ENRICH_LEVELS={levels} finds them"
        )
