"""What hosts differ in: how `.env` is written, what else the environment holds, and the locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.cli import plain_output
from enrich.errors import SettingsError
from enrich.flower.mounting import _Utf8
from enrich.settings import Settings, is_open_to_others, load_settings, of_utf8, unknown_names

CHECKOUT = Path(__file__).parents[2]
KOREAN = "한글_*,결제_오류"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    monkeypatch.chdir(tmp_path)


# -- .env


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("A=1\nENRICH_LEVELS=ERROR\n".encode("utf-16"), r"^\.env line 1 is UTF-16"),
        ("A=1\nENRICH_LEVELS=ERROR\n".encode("utf-16-be"), r"^\.env line 1 is UTF-16"),
        (b"A=1\n# f\xfcr den Betrieb\nENRICH_LEVELS=ERROR\n", r"^\.env line 2 is not UTF-8"),
        (b"A=1\r\nB=2\r\nOPENSEARCH_PASSWORD=qqq\xe4\r\n", r"^\.env line 3 is not UTF-8"),
        (b"\xff\xfe", r"^\.env line 1 is UTF-16"),
        (b"A=1\n'qqq\n", r"^\.env line 2 cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(raw: bytes, sentence: str) -> None:
    Path(".env").write_bytes(raw)
    with pytest.raises(SettingsError, match=sentence) as refused:
        load_settings()
    assert "qqq" not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_a_file_with_a_mark_of_order_and_other_line_ends_is_read() -> None:
    Path(".env").write_bytes("\ufeffENRICH_LEVELS=ERROR,오류\r\n".encode())
    assert load_settings().enrich_levels == ("ERROR", "오류")


def test_a_folder_in_its_place_is_as_no_file() -> None:
    Path(".env").mkdir()
    load_settings()


# -- unknown names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ENRICH_MAX_COST_PERDAY", "did you mean ENRICH_MAX_COST_PER_DAY?"),
        ("ENRICH_INTERVAL_MINUTE", "did you mean ENRICH_INTERVAL_MINUTES?"),
        ("enrich_batchsize", "did you mean ENRICH_BATCH_SIZE?"),
        ("OPENSEARCH_PASWORD", "did you mean OPENSEARCH_PASSWORD?"),
        ("OPENAI_KEY", "did you mean OPENAI_API_KEY?"),
        ("EMBEDDING_DIMENSION", "did you mean EMBEDDING_DIMENSIONS?"),
        ("ENRICH_QUITE_ANOTHER_THING", ".env.example has all there are"),
    ],
)
def test_a_mistyped_setting_is_an_error_in_the_file_and_a_warning_around_it(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setenv(name, "qqq")
    load_settings()
    assert unknown_names({name: "qqq"}) == [f"{name} is no setting: {hint}"]
    Path(".env").write_text(f"{name}=qqq\n", encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value) == f"{name} is no setting: {hint} (in .env)"


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_LOG", "OPENSEARCH_JAVA_OPTS"),
        *("OPENSEARCH_INITIAL_ADMIN_PASSWORD", "OPENSEARCH_SERVICE_HOST", "FLOWER_ADDRESS"),
        *("OPENSEARCH_PORT_9200_TCP_ADDR", "KAFKA_BROKERS", "KAFKA_HEAP_OPTS"),
        *("REDIS_PASSWORD", "PATH", "opensearch_host"),
    ],
)
def test_names_of_others_are_left_alone(name: str) -> None:
    assert unknown_names({name: "x"}) == []
    Path(".env").write_text(f"{name}=x\n", encoding="utf-8")
    load_settings()


def test_every_line_of_the_example_is_known() -> None:
    text = (CHECKOUT / ".env.example").read_text(encoding="utf-8")
    lines = [line.lstrip("#") for line in text.splitlines() if line.startswith(("#", "OPENAI"))]
    names = [line.partition("=")[0] for line in lines if "=" in line and " " not in line]
    assert len(names) > 40
    assert unknown_names(dict.fromkeys(names, "")) == []


@pytest.mark.parametrize(("mode", "open_"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_every_user_may_read_is_noticed(mode: int, open_: bool) -> None:
    Path(".env").touch()
    Path(".env").chmod(mode)
    assert is_open_to_others(".env") is open_
    assert not is_open_to_others("nothing")


# -- locales


def in_locale(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run in a locale of ASCII, in which Python leaves its UTF-8 mode off, as in an EUC-KR one."""
    return subprocess.run(
        [sys.executable, *program.split(), *words],
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C",
            "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OPENAI_API_KEY": "x", **environment,
        },
        capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_pattern_beyond_ascii_is_the_same_in_every_locale(place: str) -> None:
    environment = {}
    if place == "file":
        Path(".env").write_text(f"ENRICH_INDEX_PATTERN={KOREAN}\n", encoding="utf-8")
    else:
        environment = {"ENRICH_INDEX_PATTERN": KOREAN}
    Path("program.py").write_text(
        "from enrich.settings import load_settings\nprint(ascii(load_settings().index_expression))",
        encoding="utf-8",
    )
    done = in_locale("program.py", **environment)
    assert (done.stdout.decode().strip(), done.stderr) == (ascii(KOREAN), b"")


def test_marks_differ_on_a_terminal_that_has_neither() -> None:
    shown = {mark: mark.encode("ascii", plain_output.NAME) for mark in "✓!✗"}
    assert shown == {"✓": b"+", "!": b"!", "✗": b"x"}
    assert "결제 ✓ 漢".encode("euc-kr", plain_output.NAME).decode("euc-kr") == "결제 + 漢"
    assert "오류…".encode("ascii", plain_output.NAME) == b"\\uc624\\ub958~"


@pytest.mark.long
def test_a_command_prints_its_marks_and_refuses_half_characters() -> None:
    # Settings that are refused before any server is asked.
    done = in_locale("-m enrich check", OPENSEARCH_PORT="x")
    assert done.returncode == 2
    assert done.stderr.strip().startswith(b"x OPENSEARCH_PORT")
    done = in_locale("-m enrich search", os.fsdecode(b"\xb0\xe1"))
    assert done.returncode == 2
    assert b"neither UTF-8 nor" in done.stderr
    assert b"Traceback" not in done.stderr


def test_words_of_the_command_line_are_read_as_utf8() -> None:
    Path("program.py").write_text(
        "import sys\nfrom enrich.settings import of_utf8\nprint(ascii(of_utf8(sys.argv[1])))",
        encoding="utf-8",
    )
    assert in_locale("program.py", "결제 실패").stdout.decode().strip() == ascii("결제 실패")
    assert of_utf8("plain") == "plain"


def test_a_login_of_flower_may_have_any_letter() -> None:
    assert _Utf8.compare_digest("admin:geheimä비밀", "admin:geheimä비밀")
    assert not _Utf8.compare_digest("admin:geheimä", "admin:geheima")


def test_a_value_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_LEVELS", "qqq\udcff")
    with pytest.raises(SettingsError, match="ENRICH_LEVELS is not UTF-8") as refused:
        load_settings()
    assert "qqq" not in str(refused.value)
