"""Stands in for a chat model: says again, in the form that is asked for, the numbers it was told.

Of what a model can do nothing is here but the protocol: `/v1/chat/completions` with structured
output, and faults of the kind that models have.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from dev.api_faults import Fault
from dev.embeddings_protocol import Refusal


class _Message(msgspec.Struct):
    role: str
    content: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]


def read_chat(body: bytes) -> list[str]:
    """The texts of a request. Raises Refusal: it is none."""
    try:
        return [message.content for message in msgspec.json.decode(body, type=_Request).messages]
    except msgspec.MsgspecError as error:
        raise Refusal(400, str(error)) from None


def chat_answer(texts: list[str], fault: Fault | None) -> dict[str, Any]:
    """The body of an answer to texts of which the last is a JSON object of numbers."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if fault and fault.kind == "refusal":
        message["refusal"] = "I cannot help with that."
    elif fault and fault.kind == "words":
        message["content"] = str(fault.body)
    else:
        message["content"] = json.dumps(_opinion(texts[-1]))
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1705953180,
        "model": "stand-in",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _opinion(told: str) -> dict[str, Any]:
    numbers = json.loads(told)
    levels = {
        f"estimated_{level}_count": round(numbers[f"{level}_logs"]["estimate"])
        for level in ("error", "warn", "info")
    }
    total = round(numbers["total_logs"]["estimate"])
    return {
        "reasoning": f"The sample of {numbers['logs_read']} logs speaks for some {total}.",
        "estimated_total_logs": total,
        **levels,
    }
