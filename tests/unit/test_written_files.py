"""What `make` writes from the code into files of the project is what stands there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: By the rules of the Makefile: the module that prints, and the file that it is kept in.
WRITTEN = dict(
    re.findall(
        r"\$\(call written,(dev\.\w+),(\S+)\)",
        (ROOT / "Makefile").read_text(encoding="utf-8"),
    )
)


def test_the_makefile_names_them() -> None:
    assert set(WRITTEN.values()) >= {
        "docs/openapi.json",
        "docs/settings.md",
        "docs/json-schemas.json",
        "deploy/grafana/dashboards/enrich.json",
    }


@pytest.mark.parametrize("module", WRITTEN)
def test_a_file_is_what_its_module_prints(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [module])
    monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(module, run_name="__main__")
    kept = (ROOT / WRITTEN[module]).read_text(encoding="utf-8")
    assert capsys.readouterr().out == kept, f"{WRITTEN[module]} is of another version"
