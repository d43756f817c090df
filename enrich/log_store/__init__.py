"""The log store: everything that enrich asks of OpenSearch, by rooms.

`connection` speaks to the server, `nodes` says which of several, `aws` what a request is signed
with and `refusals` what an answer other than 2xx means. `paths` names indices to it, `pages`
searches what is pending, `documents` reads and writes by reference, `whereabouts` tells in which
index a log is, `arrivals` puts logs in where no shipper does, `stored_vectors` reads what others
reuse, `preflight` decides which indices may be written, `engines` whether their k-NN engine runs,
`wholeness` whether a document would be written back whole, `write_probe` whether a vector would be
taken, `distinct_texts` counts the texts of what is pending, `placement` tells where shards lie,
`run_history` keeps records of runs, `templates` and `new_indices` are for indices to come (`series`
knows how they will be called), `stats` counts and searches for people, `frequent_texts` finds what
most logs say, `shown_logs` what is shown of one, `project_logs` searches the logs of one project,
`level_counts` counts and samples them by level, `error_kinds` those with a vector by their text,
`recognition` tells which shapes their logs have, `scope` is what both searchers mean by all
indices, `coverage` what an answer left out, `cluster` what holds for all nodes, `version` tells
which OpenSearch it is. The rest sees `LogStore` only.
"""

from __future__ import annotations

from enrich.log_store.arrivals import Arrival, Arrivals
from enrich.log_store.backlog import Backlog, BacklogCounter
from enrich.log_store.connection import Connection
from enrich.log_store.distinct_texts import TextCounts
from enrich.log_store.documents import (
    DROPPED,
    MAPPING_FULL,
    PASSING,
    PIPELINE_MISSING,
    Addition,
    Document,
    Documents,
    Presence,
    Verdict,
    Write,
    encode_vector,
)
from enrich.log_store.engines import Engines
from enrich.log_store.error_kinds import ErrorKinds
from enrich.log_store.frequent_texts import FrequentTextSearch
from enrich.log_store.level_counts import LevelCounts
from enrich.log_store.mapping import Mappings
from enrich.log_store.new_indices import NewIndices
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.pages import Finder, Hit, IndexPage, Target
from enrich.log_store.placement import Placement
from enrich.log_store.preflight import APPEND_ONLY, Preflight, Readiness
from enrich.log_store.project_logs import ProjectLogs
from enrich.log_store.queries import Queries
from enrich.log_store.recognition import Recognition
from enrich.log_store.refusals import NoAnswerInTime, RequestRefused
from enrich.log_store.reusable import ReusableVectors
from enrich.log_store.run_history import RunHistory
from enrich.log_store.scope import Scope
from enrich.log_store.stats import Stats
from enrich.log_store.stored_vectors import StoredVector, StoredVectors
from enrich.log_store.templates import Templates, index_template
from enrich.log_store.version import SERVERLESS, Version, read_version
from enrich.log_store.whereabouts import Whereabouts
from enrich.log_store.wholeness import Trial, Wholeness
from enrich.settings import Settings

__all__ = [
    "APPEND_ONLY",
    "DROPPED",
    "MAPPING_FULL",
    "PASSING",
    "PIPELINE_MISSING",
    "Addition",
    "Arrival",
    "Backlog",
    "Document",
    "Finder",
    "Hit",
    "IndexPage",
    "LogStore",
    "NoAnswerInTime",
    "Presence",
    "Readiness",
    "RequestRefused",
    "StoredVector",
    "StoredVectors",
    "Target",
    "Trial",
    "Verdict",
    "Version",
    "Write",
    "encode_vector",
    "index_template",
]


@translates_odd_answers
class LogStore:
    """OpenSearch as the pipeline sees it."""

    def __init__(self, settings: Settings) -> None:
        self.connection = Connection(settings)
        scope = Scope(self.connection, settings.index_expression)
        queries = Queries(settings.log_schema, settings.enrich_max_age_days)
        self.backlog = BacklogCounter(scope, queries)
        self.finder = Finder(self.connection, scope, queries)
        self.reusable = ReusableVectors(scope, queries, settings)
        self.documents = Documents(self.connection)
        self.whereabouts = Whereabouts(self.connection, self.documents)
        self.arrivals = Arrivals(self.connection, self.documents, settings.embedding_dimensions)
        self.stored_vectors = StoredVectors(
            self.connection, settings.embedding_dimensions, queries.schema
        )
        self.stats = Stats(self.connection, scope, queries, self.stored_vectors, settings)
        project_logs = ProjectLogs(self.connection, scope, queries.schema)
        self.frequent_texts = FrequentTextSearch(scope, queries, self.stored_vectors, settings)
        self.level_counts = LevelCounts(project_logs, queries)
        self.error_kinds = ErrorKinds(
            *(self.connection, project_logs, queries, self.stored_vectors),
            model=settings.embedding_model,
            dimensions=settings.embedding_dimensions,
        )
        self.recognition = Recognition(scope, queries, settings.enrich_levels)
        self.engines = Engines(self.connection)
        self.text_counts = TextCounts(scope, queries)
        self.placement = Placement(self.connection)
        self.preflight = Preflight(self.connection, settings)
        self.mappings = Mappings(self.connection, settings.embedding_dimensions)
        self.wholeness = Wholeness(
            self.connection, self.finder, self.reusable, self.documents, settings
        )
        self.templates = Templates(self.connection)
        self.new_indices = NewIndices(
            self.connection, self.templates, settings.embedding_dimensions
        )

        self.history = RunHistory(self.connection, settings.enrich_redis_prefix)

    def close(self) -> None:
        self.connection.close()

    def version(self) -> Version:
        """Distribution and version, such as "opensearch 3.5.0"; the cheapest proof of a line."""
        if self.connection.is_serverless:
            # It tells no version.
            return Version(SERVERLESS, "")
        return read_version(self.connection)
