"""The distinct texts of some documents, each with the documents that have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from enrich.embedding.resolver import Resolved, TextRequest
from enrich.errors import TextUnusable
from enrich.log_store import Document
from enrich.models import Outcome, project_of
from enrich.schema import Schema
from enrich.text.extract import fingerprint, text_of
from enrich.text.rewriting import Rewrite
from enrich.vectors import Vector


@dataclass(kw_only=True)
class TextGroup:
    """One distinct text within a scope, and what came of it so far."""

    fingerprint: str
    text: str
    #: Project whose stored vectors may serve it, or "" where any may.
    scope: str
    documents: list[Document] = field(default_factory=list)
    vector: Vector | None = None
    #: What its first document becomes once the vector is written.
    outcome: Outcome = Outcome.DEFERRED
    #: Code of why its documents fail, if they do.
    failure: str = ""
    #: Why it has no vector this time, where that is known.
    reason: str = ""

    def request(self) -> TextRequest:
        projects = {project_of(document.reference.index) for document in self.documents}
        return TextRequest(
            fingerprint=self.fingerprint,
            text=self.text,
            scope=self.scope,
            payers=frozenset(projects),
        )

    def take(self, resolved: Resolved) -> None:
        self.vector = resolved.vector
        if resolved.source is not None:
            self.outcome = Outcome(resolved.source.value)
        self.failure, self.reason = resolved.failure, resolved.reason


def text_groups(
    documents: Sequence[Document],
    scope_of: Callable[[str], str],
    rewrite: Rewrite | None,
    schema: Schema,
) -> list[TextGroup]:
    """One for each distinct text, or for each reason why a document has none.

    Args:
        scope_of: gives the scope of an index.
    """
    groups: dict[tuple[str, str], TextGroup] = {}
    for document in documents:
        try:
            if document.failure:
                raise TextUnusable(document.failure)
            text = text_of({"message": document.message(schema)}, rewrite)
            digest, failure = fingerprint(text), ""
        except TextUnusable as error:
            text, failure = "", error.code
            digest = fingerprint(failure)
        scope = scope_of(document.reference.index)
        group = groups.setdefault(
            (scope, digest),
            TextGroup(fingerprint=digest, text=text, scope=scope, failure=failure),
        )
        group.documents.append(document)
    return list(groups.values())
