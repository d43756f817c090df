"""`check`: everything a run needs, tried without changing a document.

One line for each thing looked at: it passes, warns, or says what to change. A server that does not
answer fails its own lines only.
"""

from __future__ import annotations

from rich.console import Console

from enrich.cli import screen
from enrich.cli.checks import embeddings, kafka, opensearch, redis_and_workers, writing
from enrich.cli.checks import settings as own_settings
from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.settings import Settings


class Check:
    """Looks at one thing after the other."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._findings = Findings(console)
        self._seen = Seen()

    @property
    def status(self) -> int:
        """0; 1 when something has to be changed; 3 when a server is in the way."""
        return self._findings.status

    @property
    def cost(self) -> float | None:
        """USD that a run would cost at most; None if unknown."""
        return self._seen.cost

    @property
    def pending(self) -> int | None:
        """Logs that a run would take; None if unknown."""
        return self._seen.pending

    @property
    def pending_told(self) -> str:
        """The same as the number may be said."""
        return self._seen.pending_told

    def all(self) -> None:
        self._look_at_settings()
        looks = [
            ("Redis and workers", self._look_at_redis),
            ("OpenSearch", self._look_at_opensearch),
            ("Embeddings API", self._look_at_embeddings),
            ("Writing", self._look_at_writing),
        ]
        if self._settings.kafka_bootstrap_servers:
            looks.append(("Kafka", self._look_at_kafka))
        for title, look in looks:
            screen.heading(self._findings.console, title)
            with self._findings.failing_here():
                look()
        self._findings.conclude()

    def _look_at_settings(self) -> None:
        own_settings.look_at(self._settings, self._findings)

    def _look_at_redis(self) -> None:
        redis_and_workers.look_at(self._settings, self._findings)

    def _look_at_opensearch(self) -> None:
        opensearch.look_at(self._settings, self._findings, self._seen)

    def _look_at_embeddings(self) -> None:
        embeddings.look_at(self._settings, self._findings, self._seen)

    def _look_at_writing(self) -> None:
        writing.look_at(self._settings, self._findings, self._seen)

    def _look_at_kafka(self) -> None:
        kafka.look_at(self._settings, self._findings)
