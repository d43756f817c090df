"""The README's way to see progress with curl, run word by word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.services import Services
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import logs

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_counts_logs_with_and_without_a_vector(
    pipeline: Callable[..., Pipeline], search: Search, clean: Services
) -> None:
    search.create("a_b_2026_11")
    search.index("a_b_2026_11", logs(7, 7) + logs(5, 5, level="INFO"))
    pipeline(enrich_max_logs_per_run=3).run()
    (block,) = re.findall(r"```\n(curl.*?)```", README, re.DOTALL)
    commands = ["curl" + rest for rest in block.split("curl")[1:]]

    counts = [
        json.loads(
            subprocess.run(
                ["bash", "-c", command],
                env={"OPENSEARCH_URL": clean.opensearch.url, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                check=True,
            ).stdout
        )["count"]
        for command in commands
    ]

    assert counts == [3, 4]
