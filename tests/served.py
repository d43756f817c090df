"""The service as a process of its own, and its clients.

The fixture `serve` (tests/conftest.py) starts one on the clean stack; keyword arguments are
environment variables. Each is ended with the test.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import httpx2
import openai

from dev.service import Service
from dev.services import Services, free_ports
from tests.conftest import PREFIX, ROOT, wait_for

#: The model that it serves.
MODEL = "text-embedding-3-large"


class Served:
    """One service and its clients."""

    def __init__(self, stack: Services, number: int, exits: ExitStack, **env: str) -> None:
        self._exits = exits
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = stack.folder / f"service-{number}.log"
        self.process: Service = stack.spawn(
            f"service-{number}",
            [sys.executable, "-m", "enrich", "serve"],
            env={
                "PYTHONPATH": str(ROOT),
                "ENRICH_LOG_FILE": str(self.log),
                "ENRICH_REDIS_PREFIX": PREFIX,
                "ENRICH_API_PORT": str(self.port),
                "EMBEDDING_MODEL": MODEL,
                **env,
            },
        )
        exits.callback(self.process.stop)
        self.http = httpx2.Client(base_url=self.url, timeout=60)
        exits.callback(self.http.close)
        wait_for(self._answers, self.process)

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def openai(self, key: str = "any") -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self._exits.callback(client.close)
        return client

    def told(self) -> str:
        return self.process.log.read_text() + self.log.read_text()
