"""Messages as kombu stores them in Redis' lists, for those who put them there past the product."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any


def envelope(
    body: bytes,
    *,
    task: Any = "enrich.embed_and_update",
    queue: str = "enrich.embed",
    content_type: str = "application/json",
    more: dict[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """A message of Celery's second protocol, with anything in it.

    Args:
        task: None leaves the header out.
        more: goes to the headers.
        changes: take the place of the message's own fields.
    """
    id = str(uuid.uuid4())
    headers: dict[str, Any] = {"lang": "py", "id": id, "root_id": id, "argsrepr": "", "retries": 0}
    headers |= more or {}
    if task is not None:
        headers["task"] = task
    message: dict[str, Any] = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": headers,
        "properties": {
            "correlation_id": id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "enrich", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message | changes).encode()


def arguments(*given: Any) -> bytes:
    """The body of a message whose task gets these arguments."""
    return json.dumps([list(given), {}, {}]).encode()


def again(message: bytes) -> bytes:
    """A copy of a message, under a delivery tag of its own, as a broker's redelivery has."""
    copy = json.loads(message)
    copy["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(copy).encode()
