"""Groups of ERROR logs that say the same: frequent texts, put together where their vectors are
near."""

from __future__ import annotations

from collections.abc import Sequence

from enrich.analysis.grouping import groups_of
from enrich.api.models import GroupOut, GroupsOut
from enrich.log_store.coverage import Counted
from enrich.log_store.frequent_texts import MOST_INDICES, FrequentText, FrequentTexts

#: Characters of an example's message.
MOST_CHARACTERS = 2000


def grouped(found: Counted[FrequentTexts], k: int, similarity: float) -> GroupsOut:
    """The k largest groups.

    Args:
        similarity: the least cosine of a text with the most frequent of its group.
    """
    texts = found.value.texts
    groups = [
        _group([texts[place] for place in places])
        for places in groups_of([text.vector for text in texts], similarity)
    ]
    groups.sort(key=lambda group: -group.logs)
    return GroupsOut(
        groups=groups[:k],
        logs_of_other_groups=sum(group.logs for group in groups[k:]),
        logs_of_rarer_texts=found.value.other_logs,
        left_out=[] if found.gaps.whole else [found.gaps.sentence("searched")],
    )


def _group(texts: Sequence[FrequentText]) -> GroupOut:
    first = texts[0]
    indices = {name for text in texts for name in text.indices}
    message = first.fields.get("message")
    service = first.fields.get("service_name")
    return GroupOut(
        logs=sum(text.logs for text in texts),
        texts=len(texts),
        first_seen=min(filter(None, (text.first_seen for text in texts)), default=None),
        last_seen=max(filter(None, (text.last_seen for text in texts)), default=None),
        index=first.index,
        id=first.id,
        indices=sorted(indices)[:MOST_INDICES],
        message=None if message is None else str(message)[:MOST_CHARACTERS],
        service_name=None if service is None else str(service),
    )
