"""Prints the JSON schemas of what commands print: docs/json-schemas.json (`make schemas`)."""

from __future__ import annotations

import json

from enrich.cli.json_forms import schemas

if __name__ == "__main__":
    print(json.dumps(schemas(), indent=2, ensure_ascii=False))
