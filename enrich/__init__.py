"""enrich gives every ERROR log in OpenSearch its embedding vector.

`celery -A enrich …` finds the Celery app here; it is imported only when asked for, so that the
command line starts without it.
"""

from __future__ import annotations

from typing import Any

#: The one place of it; a wheel has it from here.
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "celery":
        from enrich.worker.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
