"""The embeddings server's other side: what it was asked for, and what it shall do wrong."""

from __future__ import annotations

from typing import Any

import httpx2


class ApiControl:
    """Speaks to the `/control` routes of `dev.embeddings_server`.

    Args:
        url: the server's, without `/v1`.
        key: of the stack that started the server, see `Services.control_key`.

    Raises:
        httpx2.HTTPError: by any method, if the server is not there or refuses what it is told.
    """

    def __init__(self, url: str, key: str = "") -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=10)

    def close(self) -> None:
        self._http.close()

    def reset(self, **settings: Any) -> None:
        """Forget all counts, faults and settings; then change these settings."""
        self._post("/control/reset")
        if settings:
            self.set(**settings)

    def set(self, **settings: Any) -> None:
        """Change settings, see `dev.embeddings_server.Settings`; the others stay."""
        self._post("/control", settings)

    def faults(self, *faults: dict[str, Any]) -> None:
        """Add faults to those that wait for their request, see `dev.api_faults`."""
        self._post("/control/faults", list(faults))

    def heal(self) -> None:
        """Drop all faults; counts and settings stay."""
        self._http.delete("/control/faults").raise_for_status()

    @property
    def seen(self) -> dict[str, Any]:
        """What was counted since the last reset, and the settings."""
        return dict(self._http.get("/control").raise_for_status().json())

    def counts(self) -> dict[str, int]:
        """Only the numbers of `seen`; what was refused is one sum."""
        told = self.seen
        names = ("requests", "inputs", "tokens", "distinct_inputs", "in_flight_max")
        return {**{name: told[name] for name in names}, "refused": sum(told["refused"].values())}

    def _post(self, path: str, told: Any = None) -> None:
        self._http.post(path, json=told).raise_for_status()
