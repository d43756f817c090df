"""`check`: the settings: which are set, and which are better set otherwise."""

from __future__ import annotations

from enrich.cli import screen
from enrich.cli.checks.findings import Findings
from enrich.settings import Settings, is_open_to_others, unknown_names


def look_at(settings: Settings, findings: Findings) -> None:
    screen.heading(findings.console, "Settings")
    fields = type(settings).model_fields
    changed = {name for name, value in settings if value != fields[name].default}
    findings.ok(f"valid; {len(changed)} are set, {len(fields) - len(changed)} have their defaults")
    for name, shown in settings.redacted().items():
        if name.lower() in changed:
            findings.console.print(f"     {screen.clean(name)}={screen.clean(shown)}")
    for sentence in unknown_names():
        findings.warn(f"{sentence} (in the environment)")
    if is_open_to_others(".env"):
        findings.warn(".env can be read by every user of this host: chmod 600 .env")
    if not settings.price_per_million_tokens:
        findings.warn(
            f"the price of {settings.embedding_model} is not known, so cost shows as $0: set "
            "ENRICH_PRICE_PER_MILLION_TOKENS"
        )
    elif not settings.enrich_max_cost_per_day:
        findings.warn(
            "no limit of cost a day is set: who writes logs decides what is paid, at full "
            "speed about $2 a second; set ENRICH_MAX_COST_PER_DAY (in USD)"
        )
    if settings.opensearch_nodes[0].secured and not settings.opensearch_verify_certs:
        findings.warn("OPENSEARCH_VERIFY_CERTS is false: anybody in between can read the logs")
