"""`check`: what the consumer needs of Kafka: brokers, topics, its group, and the rights to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enrich.cli.checks.findings import Findings
from enrich.cli.screen import few, plural
from enrich.errors import AccessRefused
from enrich.setting_forms.loopback import is_loopback
from enrich.settings import Settings

if TYPE_CHECKING:
    from enrich.realtime.inspection import GroupState, Inspection, Offsets, Topic


def look_at(settings: Settings, findings: Findings) -> None:
    from enrich.realtime.inspection import Inspection

    inspection = Inspection(settings)
    cluster = inspection.cluster()
    brokers = plural(cluster.brokers, "broker")
    findings.ok(
        f"{brokers} of cluster {cluster.id} at {settings.kafka_bootstrap_servers}, "
        f"{_secured(settings)}"
    )
    _look_at_security(settings, findings)
    topics = _look_at_topics(settings, inspection, findings)
    with findings.failing_here():
        _look_at_group(settings, inspection, topics, findings)


def _secured(settings: Settings) -> str:
    """How the connection is secured."""
    protocol = settings.kafka_security_protocol
    told = "over TLS" if protocol.endswith("SSL") else "without TLS"
    if settings.kafka_ssl_certificate_location:
        told += " with a certificate of its own"
    if protocol.startswith("SASL"):
        who = settings.kafka_sasl_username or settings.kafka_oauth_client_id
        told += f", logged in as {who} ({settings.kafka_sasl_mechanism})"
    return told


def _look_at_security(settings: Settings, findings: Findings) -> None:
    servers = settings.kafka_bootstrap_servers.lower().split(",")
    hosts = [one.rpartition(":")[0].strip("[]") for one in servers]
    if settings.kafka_security_protocol == "SASL_PLAINTEXT":
        findings.warn(
            "login and logs travel in clear: KAFKA_SECURITY_PROTOCOL=SASL_SSL, where the brokers "
            "have a listener for it"
        )
    elif settings.kafka_security_protocol == "PLAINTEXT" and not all(map(is_loopback, hosts)):
        findings.warn(
            "anybody in between can read the logs: KAFKA_SECURITY_PROTOCOL=SASL_SSL or SSL, where "
            "the brokers have a listener for it"
        )
    if str(settings.kafka_options.get("enable.ssl.certificate.verification")).lower() == "false":
        findings.warn(
            "KAFKA_EXTRA_CONFIG turns off that the brokers' certificate is checked: anybody in "
            "between can read the logs"
        )


def _look_at_topics(settings: Settings, inspection: Inspection, findings: Findings) -> list[Topic]:
    """Those that can be read."""
    readable = []
    for name in settings.kafka_topic:
        with findings.failing_here():
            try:
                topic = inspection.topic(name)
            except AccessRefused as error:
                findings.bad(f"topic {name}: {error}, or correct KAFKA_TOPIC")
                continue
            if topic is None:
                findings.bad(
                    f"topic {name} is not there: create it, or correct KAFKA_TOPIC; the consumer "
                    "waits for it"
                )
            elif not topic.may_read:
                findings.bad(f"topic {name} is seen and may not be read: {_give(settings)} Read")
            else:
                parts = plural(len(topic.partitions), "partition")
                findings.ok(f"topic {name}: {parts}, which may be read")
                readable.append(topic)
    return readable


def _look_at_group(
    settings: Settings, inspection: Inspection, topics: Sequence[Topic], findings: Findings
) -> None:
    name = settings.consumer_group_id
    try:
        group = inspection.group()
    except AccessRefused as error:
        findings.bad(f"group {name}: {error}")
        return
    if not group.may_read:
        findings.bad(f"group {name} is seen and may not be used: {_give(settings)} Read on it")
        return
    _look_at_members(name, group, sum(len(topic.partitions) for topic in topics), findings)
    offsets = inspection.offsets(topics)
    if not offsets:
        return
    unknown = [one for one in offsets if one.committed is None]
    lag = sum(one.lag for one in offsets)
    told = f"{plural(lag, 'message')} left in {plural(len(offsets), 'partition')}"
    behind = sorted((one for one in offsets if one.lag), key=lambda one: -one.lag)
    if behind:
        told += f": {few([f'{one.topic}/{one.number} {one.lag:,}' for one in behind])}"
    findings.ok(told)
    if unknown:
        begin = "begins" if len(unknown) == 1 else "begin"
        findings.ok(
            f"{plural(len(unknown), 'partition')} without an offset {begin} at the "
            f"{settings.kafka_auto_offset_reset} message (KAFKA_AUTO_OFFSET_RESET)"
        )
    _look_at_retention(offsets, findings)


def _look_at_members(name: str, group: GroupState, partitions: int, findings: Findings) -> None:
    count = len(group.members)
    if not count:
        findings.warn(f"group {name} has no consumer now: `python -m enrich consume` starts one")
        return
    findings.ok(f"group {name} is {group.state}, with {plural(count, 'consumer')}")
    if group.strangers:
        findings.bad(
            f"another program consumes as group {name} ({few(group.strangers)}), so that each "
            "sees a part of the logs: set CONSUMER_GROUP_ID to a name of its own"
        )
    elif partitions and count > partitions:
        findings.warn(
            f"{plural(count - partitions, 'consumer')} of group {name} "
            f"{'has' if count - partitions == 1 else 'have'} nothing to do: there are "
            f"{plural(partitions, 'partition')}"
        )


def _look_at_retention(offsets: Sequence[Offsets], findings: Findings) -> None:
    removed = [one for one in offsets if one.removed]
    if removed:
        findings.warn(
            f"Kafka has removed {plural(sum(one.removed for one in removed), 'message')} before "
            f"they were read, in {few([f'{one.topic}/{one.number}' for one in removed])}: the "
            "backfill finds those logs that are in OpenSearch; raise the topic's retention.ms, or "
            "start more consumers"
        )


def _give(settings: Settings) -> str:
    who = settings.kafka_sasl_username
    return f"give KAFKA_SASL_USERNAME {who}" if who else "give this client"
