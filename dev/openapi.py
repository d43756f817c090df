"""Prints the service's description of itself, kept as docs/openapi.json (`make openapi`)."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import Mock

from enrich.api.app import build_app
from enrich.api.keys import Keys
from enrich.api.opinions import NOBODY
from enrich.api.parts import Parts


def document() -> dict[str, Any]:
    """What `GET /openapi.json` answers; nothing is asked of any server."""
    parts: Any = Mock(
        spec=list(Parts.__dataclass_fields__),
        keys=Keys({}),
        dimensions=1536,
        commentator=NOBODY,
        servers={"redis": Mock()},
    )
    return build_app(parts).openapi()


if __name__ == "__main__":
    print(json.dumps(document(), indent=2, ensure_ascii=False))
