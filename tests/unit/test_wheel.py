"""The wheel: what is in it, and that a program has its own `tasks` and `celeryconfig` wherever it
is started. It is unpacked as an installation does; tests/integration/test_installs.py runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import enrich
from enrich.worker.installation import DISTRIBUTION, other_version, top_level

ROOT = Path(enrich.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """A folder of packages that the wheel was unpacked into."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_has_all_that_git_has_and_nothing_generic(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "enrich", "tasks", "celeryconfig.py", "flowerconfig.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    expected = {
        name if name.startswith("enrich/") else f"enrich/installed/{name}" for name in listed
    }
    with zipfile.ZipFile(wheel) as archive:
        ours = {name for name in archive.namelist() if ".dist-info/" not in name}
    # Perhaps more than git has, as long as it is not committed.
    assert expected <= ours
    assert {name.partition("/")[0] for name in ours} == {"enrich"}
    assert {Path(name).suffix for name in ours} == {Path(name).suffix for name in expected}


def test_its_metadata(site: Path) -> None:
    (info,) = site.glob("*.dist-info")
    metadata = (info / "METADATA").read_text()
    assert f"\nName: {DISTRIBUTION}\nVersion: {enrich.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert (info / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (info / "entry_points.txt").read_text().split() == [
        *("[console_scripts]", "enrich", "=", "enrich.__main__:main"),
    ]
    asked = re.findall(r"^Requires-Dist: ([\w.-]+==\S+)$", metadata, re.M)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert sorted(asked) == sorted(line for line in lines if line[0] != "#")


def python(site: Path, cwd: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={"PYTHONPATH": str(site), "OPENAI_API_KEY": "k", "PATH": os.defpath},
        capture_output=True,
        text=True,
    )


def test_a_program_has_its_own_modules_beside_others_of_these_names(
    site: Path, tmp_path: Path
) -> None:
    for name in ("tasks.py", "celeryconfig.py", "flowerconfig.py"):
        (tmp_path / name).write_text("raise SystemExit('the module of another program')")
    # As `celery -A enrich` does: the working directory first, then the app and its imports.
    program = (
        "import json, os\n"
        "from celery.app.utils import find_app\n"
        "app = find_app('enrich')\n"
        "app.loader.import_default_modules()\n"
        "import sys\n"
        "names = ('celeryconfig', 'tasks', 'tasks.enrichment')\n"
        "print(json.dumps([*[sys.modules[n].__file__ for n in names], os.environ['FLOWER_CONF'],\n"
        "    'enrich.find_unvectorized' in app.tasks and str(app.conf.task_acks_late)]))\n"
    )
    done = python(site, tmp_path, program)
    assert done.returncode == 0, done.stderr
    inside = site / "enrich" / "installed"
    assert json.loads(done.stdout) == [
        str(inside / "celeryconfig.py"),
        str(inside / "tasks" / "__init__.py"),
        str(inside / "tasks" / "enrichment.py"),
        str(inside / "flowerconfig.py"),
        "True",
    ]


@pytest.mark.parametrize("theirs", [enrich.__version__, "9.9.9"])
def test_a_wheel_beside_a_checkout_of_another_version_is_told(
    site: Path, tmp_path: Path, theirs: str
) -> None:
    (tmp_path / "celeryconfig.py").touch()
    (tmp_path / "enrich").mkdir()
    (tmp_path / "enrich" / "__init__.py").write_text(f'__version__ = "{theirs}"\n')
    # The command of an installation does not see the working directory, as -c does.
    program = (
        "import sys; sys.path.remove(''); sys.argv[1:] = ['search', '--index', '%', 'x']\n"
        "from enrich.__main__ import main; main()"
    )
    done = python(site, tmp_path, program)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    sentence = (
        f"! this is enrich {enrich.__version__}, as installed; `celery -A enrich` and "
        "`python -m enrich` take the checkout in this folder, 9.9.9:"
    )
    assert (sentence in told) is (theirs == "9.9.9")
    assert "give names or patterns of indices" in told


def test_a_checkout_beside_a_wheel_of_another_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert top_level() == ROOT
    assert other_version(tmp_path) == ""
    info = tmp_path / "site" / "enrich_logs-0.0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: 0.0.9\n")
    monkeypatch.syspath_prepend(str(info.parent))
    sentence = other_version(tmp_path)
    assert sentence.startswith(f"this is enrich {enrich.__version__}, of the checkout in {ROOT};")
    assert "enrich 0.0.9 is installed" in sentence
    # Each program says it where it says its settings.
    program = "from enrich.worker.app import log_settings; log_settings('worker')"
    done = python(info.parent, tmp_path, f"import sys; sys.path.append('{ROOT}'); {program}")
    assert sentence in done.stderr.splitlines()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: {enrich.__version__}\n"
    )
    assert other_version(tmp_path) == ""
