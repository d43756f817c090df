"""Settings: where they come from, what is refused and how it is said, and what a log may show."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import SettingsError
from enrich.settings import Settings, load_settings, without_password

TIMES = (
    "ENRICH_SOFT_TIME_LIMIT_SECONDS",
    "ENRICH_HARD_TIME_LIMIT_SECONDS",
    "ENRICH_VISIBILITY_TIMEOUT_SECONDS",
    "ENRICH_CHUNK_DEADLINE_SECONDS",
)

#: For each variable, values that must stop the start. Each holds a mark that no message may quote.
WRONG: dict[str, list[str]] = {
    "OPENAI_API_KEY": [" ", "sk-qqq\nHost: qqq", "ключ-qqq", "sk-\x07qqq"],
    "ENRICH_TRACES_URL": ["qqq", "ftp://qqq", "http://", "https://user:qqq@collector/v1/traces",
        "https://collector/v1/traces?api_key=qqq"],
    "OPENAI_BASE_URL": [
        "qqq", "ftp://qqq", "https://", "https:///qqq", "https://me:qqq@api", "https://qqq@api",
        "http://[qqq]/v1", "http://[qqq", "http://api:qqq", "http://api:0", "http://q\u2100qq",
        "https://api/v1?subscription-key=qqq", "https://api/v1?sig=qqq", "https://api/v1#qqq",
        # Azure's portal address without its deployment, its version, or with another operation's.
        "https://qqq.openai.azure.com/openai/deployments/embeddings?api-version=1",
        "https://qqq.openai.azure.com/openai/deployments?api-version=1",
        "https://qqq.openai.azure.com/openai/deployments/qqq/embeddings",
        "https://qqq.openai.azure.com/openai/deployments/qqq/chat/completions?api-version=1",
        "https://api/openai/deployments/{qqq}/embeddings?api-version=1", "https://api/<qqq>/v1",
        "https://api.cohere.com/v2/embed", "http://qqq:11434/api/embed",
        "https://generativelanguage.googleapis.com/v1beta/models/qqq:embedContent",
        "https://bedrock-runtime.qqq.amazonaws.com/model/qqq/invoke",
    ],
    "OPENAI_PROXY": ["qqq", "ftp://qqq", "http://", "http://u:qqq#x@host", "http://a:qqq"],
    "OPENAI_EXTRA_HEADERS": [
        "qqq", "[]", '"qqq"', "3", '{"qqq": 1}', '{"qqq": null}', '{"qqq q": "a"}', '{"": "qqq"}',
        '{"X-A": "qqq\\nHost: qqq"}', '{"X-A": "qqq\\u00e9"}', '{"Content-Length": "qqq"}',
        '{"accept-encoding": "qqq"}', '{"X-A": "qqq", "x-a": "qqq"}',
    ],
    **{
        name: [
            "qqq", "[]", "3", '{"qqq": NaN}', '{"input": "qqq"}', '{"model": "qqq"}',
            '{"dimensions": 7}', '{"encoding_format": "qqq"}', '{"api_key": "qqq"}',
            '{"a": [{"secret": "qqq"}]}', "{" * 5000 + "qqq", '{"a": "' + "qqq" * 4000 + '"}',
        ]
        for name in (
            "OPENAI_EXTRA_BODY", "ENRICH_DOCUMENT_EXTRA_BODY", "ENRICH_QUERY_EXTRA_BODY",
        )
    },
    "ENRICH_DOCUMENT_PREFIX": ["qqq\x07", "q" * 1001],
    "ENRICH_QUERY_PREFIX": ["qqq\x1b", "q" * 1001],
    "ENRICH_SEND_DIMENSIONS": ["qqq", "1"],
    "ENRICH_ENCODING_FORMAT": ["qqq", "int8"],
    "ENRICH_MAX_REQUEST_INPUTS": ["qqq", "-1", "2049", "0.5"],
    "ENRICH_MAX_REQUEST_BYTES": ["qqq", "-1", "600001"],
    "OPENAI_TIMEOUT_SECONDS": ["qqq", "0", "-1", "nan", "inf"],
    "ENRICH_MAX_TEXT_BYTES": ["qqq", "-1", "1", "63", "8001", "0.5"],
    "EMBEDDING_DIMENSIONS": ["qqq", "1", "16001", "1.5"],
    "OPENSEARCH_HOST": [
        "me:qqq@host", "qqq@host", "https://host", "https://me:qqq@host:9200", "host/path?qqq",
        "a,qqq", "a;qqq", "host:9200", "a qqq", "a\nqqq", "host/", "a\x1bqqq",
    ],
    "OPENSEARCH_USER": ["admin:qqq"],
    "OPENSEARCH_URL": [
        "qqq", "ftp://qqq", "https://", "https:///qqq", "host:9200/qqq", "https://a,qqq", ",",
        # With these a password ends the host or the node early, and would be shown.
        "https://me:qqq/x@a", "https://me:qqq#x@a", "https://me:q,qq@a", "https://:qqq@a",
        "https://me%3Aqqq:x@a", "https://a:qqq", "https://a:0", "https://q\u2100qq",
        "https://a/?qqq", "https://a/x#qqq", "https://a/qqq x", "https://a/../qqq", "https://a qqq",
        "https://a\n/qqq", "http://a,https://qqq", "https://me:qqq@a,https://you:qqq@b",
    ],
    "OPENSEARCH_TOKEN": ["qqq qqq", "qqq\nqqq", "qqq\u00e4", "qqq\x07"],
    "OPENSEARCH_HEADERS": [
        "qqq", "[]", '"qqq"', '{"x-key": 1, "qqq": 2}', '{"x-key": null}', '{"x key": "qqq"}',
        '{"x-key": "qqq\\nqqq"}', '{"x-key": "\u00e4qqq"}', '{"Host": "qqq"}', '{"": "qqq"}',
        '{"content-Length": "qqq"}', '{"X-Key": "qqq", "x-key": "qqq"}',
    ],
    "OPENSEARCH_AUTH": ["qqq", "AWS qqq"],
    "OPENSEARCH_AWS_SERVICE": ["qqq", "s3 qqq"],
    "OPENSEARCH_CLIENT_KEY": ["/qqq.pem"],
    "OPENSEARCH_PORT": ["qqq", "0", "65536", "9200.5"],
    "OPENSEARCH_USE_SSL": ["qqq"],
    "OPENSEARCH_VERIFY_CERTS": ["qqq"],
    "OPENSEARCH_TIMEOUT_SECONDS": ["qqq", "0", "-1", "nan", "inf"],
    "REDIS_URL": [
        "qqq", "http://qqq", "unix://", "unix://qqq", "unix://qqq/x",
        "redis://", "redis://host:qqq", "redis://host:70000",
        # A password with these ends the host early, and would be shown.
        "redis://:qqq/x@host", "redis://:1/qqq@host", "redis://u:1/qqq@host", "redis://u:1#qqq@host",
        "redis://:qqq\u2100@host", "redis://[qqq]",
        # What is not supported, and what the two clients of the URL would read in two ways.
        "unix:///x?qqq=1", "unix:///x?db=qqq", "unix:///x#qqq", "socket://qqq",
        "unix:///x?db=1&virtual_host=2", "unix:///x?ssl_ca_certs=qqq", "redis+socket://",
        "sentinel://", "sentinel://,;", "sentinel://a:qqq", "sentinel://a,:qqq/x@b",
        "sentinel://:qqq@a,:qqqq@b", "sentinel://a/0;sentinel://b/1", "sentinel://a/qqq/x/1",
        "sentinel://a?qqq=1", "sentinel://a/m?master_name=qqq", "sentinel://a?ssl_ca_certs=qqq",
        "sentinel://a#qqq", "sentinel://:qqq#x@a", "rediss+sentinel://a?ssl_cert_reqs=qqq",
        "redis://:qqq@a:6379,b:6379/0", "redis://a,qqq/0", "redis://a/qqq", "redis://a/0/1",
        "redis://a/0?qqq=1", "redis://a/0?db=qqq", "redis://a/0?ssl_cert_reqs=none",
        "rediss://a/0?ssl_cert_reqs=qqq", "rediss://a/0?ssl_min_version=qqq",
    ],
    "CACHE_URL": ["qqq", "http://qqq", "redis://:qqq#x@host", "redis://:qqq\u2100@host"],
    "ENRICH_INDEX_PATTERN": [",", " , "],
    "ENRICH_LEVELS": [",", " , ,", ">qqq", ">=", "<5qqq", "=5"],
    "ENRICH_SCHEMA": ["qqq", "ecs,otel"],
    "ENRICH_LEVEL_FIELD": ["log.*", "a qqq", "a..b", ".a", "a."],
    "ENRICH_TEXT_FIELDS": ["message,a.*", "a qqq", "message,.b"],
    "ENRICH_TIMESTAMP_FIELD": ["*", "a,b"],
    "ENRICH_SERVICE_FIELD": ["*", "a,b"],
    "ENRICH_TRACE_FIELD": ["*", "a b"],
    "ENRICH_NORMALIZE": ["qqq", "numbers,qqq", "numbers ids"],
    "ENRICH_MAX_AGE_DAYS": ["qqq", "-1", "nan", "inf"],
    "ENRICH_MASK": ["qqq", "email,qqq", "email ip"],
    "ENRICH_INTERVAL_MINUTES": ["qqq", "0", "-1", "nan", "inf"],
    "ENRICH_BATCH_SIZE": ["qqq", "0", "2049"],
    "ENRICH_MAX_LOGS_PER_RUN": ["qqq", "-1"],
    "ENRICH_MAX_COST_PER_DAY": ["qqq", "-1", "nan", "inf"],
    "ENRICH_CONFIRM_ABOVE_USD": ["qqq", "-1", "nan", "inf"],
    "ENRICH_MAX_PROJECT_SHARE": ["qqq", "0", "-1", "1.1", "nan", "inf"],
    "ENRICH_MAX_CHUNKS_IN_FLIGHT": ["qqq", "0"],
    "ENRICH_PRICE_PER_MILLION_TOKENS": ["qqq", "-1", "nan", "inf"],
    "ENRICH_REQUESTS_PER_MINUTE": ["qqq", "-1"],
    "ENRICH_TOKENS_PER_MINUTE": ["qqq", "-1"],
    "ENRICH_WRITE_PACE": ["qqq", "-1", "0.5"],
    "ENRICH_CACHE_MAX_ENTRIES": ["qqq", "-1"],
    "ENRICH_CACHE_TTL_SECONDS": ["qqq", "0"],
    "ENRICH_REUSE_ACROSS_PROJECTS": ["qqq"],
    "ENRICH_HISTORY": ["qqq", "2"],
    "ENRICH_HISTORY_DAYS": ["qqq", "0", "-1", "0.5", "3651"],
    **{name: ["qqq", "0", "-1", "nan", "inf"] for name in TIMES},
    "ENRICH_OUTAGE_SECONDS": ["qqq", "-1", "3601", "nan", "inf"],
    "ENRICH_TIME_ZONE": ["qqq", "../qqq", "/etc/qqq", "Asia/qqq", "Asia", "qqq\x07", "q" * 300],
    "ENRICH_LOG_FORMAT": ["qqq", "JSON qqq"],
    "ENRICH_API_PORT": ["qqq", "0", "65536"],
    "ENRICH_COALESCE_MS": ["qqq", "-1", "1001", "nan"],
    "CHAT_MODEL": ["qqq\x07", "q" * 201],
    "CHAT_BASE_URL": [
        # Right, but the key of the embeddings API is for that alone.
        "https://qqq.example/v1", "https://qqq.example/v1/chat/completions",
        "qqq", "ftp://qqq", "https://", "https://me:qqq@api", "http://[qqq/v1", "http://api:qqq",
        "https://api/v1?subscription-key=qqq", "https://api/v1#qqq", "https://api/<qqq>/v1",
    ],
    "CHAT_API_KEY": ["sk-qqq\nHost: qqq", "ключ-qqq", "sk-\x07qqq"],
    "CHAT_TIMEOUT_SECONDS": ["qqq", "0", "-1", "61", "nan", "inf"],
    "KAFKA_BOOTSTRAP_SERVERS": ["qqq", "qqq:0", "kafka://qqq:9092", "a:9092,qqq", "u:qqq@a:9092"],
    "KAFKA_TOPIC": [",", "a qqq", "qqq*", "..", "q" * 250],
    "CONSUMER_GROUP_ID": ["q" * 250],
    "KAFKA_GROUP_PROTOCOL": ["qqq"],
    "KAFKA_AUTO_OFFSET_RESET": ["qqq", "none"],
    "ENRICHMENT_BATCH_SIZE": ["qqq", "0", "1001"],
    "ENRICHMENT_BATCH_TIMEOUT": ["qqq", "0", "301", "nan", "inf"],
    "ENRICH_CONSUMER_MODE": ["qqq"],
    "ENRICH_DOCUMENT_WAIT_SECONDS": ["qqq", "-1", "601", "nan", "inf"],
    "KAFKA_ID_FIELDS": [",", " , "],
    "KAFKA_PROJECT_FIELDS": [",", " , "],
    "KAFKA_SECURITY_PROTOCOL": ["qqq", "SASL_SSL qqq"],
    "KAFKA_SASL_MECHANISM": ["qqq", "GSSAPI", "PLAIN"],
    "KAFKA_SASL_USERNAME": ["qqq"],
    "KAFKA_SASL_PASSWORD": ["qqq"],
    "KAFKA_SSL_CA_LOCATION": ["/qqq.pem"],
    "KAFKA_SSL_CERTIFICATE_LOCATION": ["/qqq.pem"],
    "KAFKA_SSL_KEY_LOCATION": ["/qqq.pem"],
    "KAFKA_EXTRA_CONFIG": [
        "qqq", "[]", '{"sasl.password": "qqq"}', '{"enable.auto.commit": true}', '{"a": ["qqq"]}',
    ],
}  # fmt: skip

#: Any text is as good as another.
FREE = {
    "EMBEDDING_MODEL",
    "OPENSEARCH_PASSWORD",
    "OPENSEARCH_CA_CERTS",
    "OPENSEARCH_CLIENT_CERT",
    # Looked at only where requests are signed: others have it for other programs.
    "AWS_REGION",
    "ENRICH_REDIS_PREFIX",
    "ENRICH_EXCLUDE_INDICES",
    "ENRICH_LOG_FILE",
    "ENRICH_ALIVE_FILE",
    # Looked at when the service begins.
    "ENRICH_API_ADDRESS",
    "ENRICH_API_KEYS_FILE",
    # Of no use without a security protocol and a mechanism, which name what they lack.
    "KAFKA_SSL_KEY_PASSWORD",
    "KAFKA_OAUTH_TOKEN_URL",
    "KAFKA_OAUTH_CLIENT_ID",
    "KAFKA_OAUTH_CLIENT_SECRET",
    "KAFKA_OAUTH_SCOPE",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable set but the key, and no `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    monkeypatch.chdir(tmp_path)


def load(**values: Any) -> Settings:
    return load_settings(openai_api_key="sk-right", **values)


def test_every_variable_is_in_one_of_the_tables() -> None:
    assert {name.upper() for name in Settings.model_fields} == WRONG.keys() | FREE
    assert not WRONG.keys() & FREE


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_wrong_value_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert name in str(refused.value)
    assert "qqq" not in str(refused.value)
    # Nor may the traceback lead to a message that quotes it.
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.sampled_from(sorted(WRONG.keys() | FREE)),
    st.text(max_size=20) | st.floats().map(str) | st.integers().map(str),
)
def test_any_value_is_taken_or_refused_by_name(name: str, value: str) -> None:
    try:
        load_settings(**{"openai_api_key": "sk-right", name.lower(): value})
    except SettingsError as error:
        # Times out of order are named by the pair.
        assert name in str(error)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENSEARCH_PORT", "ENRICH_BATCH_SIZE", "REDIS_URL"):
        monkeypatch.setenv(name, "qqq")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert {"OPENSEARCH_PORT", "ENRICH_BATCH_SIZE", "REDIS_URL"} <= set(
        str(refused.value).replace(":", "").split()
    )


@pytest.mark.parametrize("value", [None, ""])
def test_missing_key_says_where_to_set_it(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(SettingsError, match=r"^OPENAI_API_KEY is not set: .*\.env$"):
        load_settings()


def test_key_from_a_file_with_a_line_break_is_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-from-a-file\n")
    assert load_settings().openai_api_key.get_secret_value() == "sk-from-a-file"


def test_cost_limit_needs_a_price_and_quotes_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_MAX_COST_PER_DAY", "5")
    assert load_settings().enrich_max_cost_per_day == 5
    monkeypatch.setenv("EMBEDDING_MODEL", "qqq-model")
    with pytest.raises(SettingsError, match="ENRICH_PRICE_PER_MILLION_TOKENS") as refused:
        load_settings()
    assert "qqq" not in str(refused.value)
    monkeypatch.setenv("ENRICH_PRICE_PER_MILLION_TOKENS", "0.5")
    assert load_settings().price_per_million_tokens == 0.5


def test_defaults_are_those_of_the_design() -> None:
    loaded = load()
    assert loaded.embedding_model == "text-embedding-3-large"
    assert loaded.embedding_dimensions == 1536
    assert loaded.index_expression == "*_*,-.*"
    assert loaded.enrich_levels == ("ERROR",)
    assert loaded.interval_seconds == 600
    assert (loaded.enrich_batch_size, loaded.enrich_max_chunks_in_flight) == (256, 64)
    assert (loaded.enrich_cache_max_entries, loaded.enrich_cache_ttl_seconds) == (30_000, 3600)
    assert loaded.redis_url.get_secret_value() == "redis://localhost:6379/0"
    assert loaded.vector_cache_url == "redis://localhost:6379/0"
    assert loaded.opensearch_verify_certs
    assert not loaded.enrich_reuse_across_projects
    assert [getattr(loaded, name.lower()) for name in TIMES] == [90, 120, 300, 420]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3, 4))))
def test_times_must_be_in_order(order: tuple[int, ...]) -> None:
    values = {name.lower(): value for name, value in zip(TIMES, order, strict=True)}
    if order == (1, 2, 3, 4):
        load(**values)
        return
    with pytest.raises(SettingsError, match=r"^ENRICH_\w+ must be shorter than ENRICH_\w+$"):
        load(**values)


@pytest.mark.parametrize("which", range(3))
def test_equal_times_are_refused_by_name(which: int) -> None:
    values = {name.lower(): float(n) for n, name in enumerate(TIMES, 1)}
    values[TIMES[which].lower()] = values[TIMES[which + 1].lower()]
    expected = f"^{TIMES[which]} must be shorter than {TIMES[which + 1]}$"
    with pytest.raises(SettingsError, match=expected):
        load(**values)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("ERROR", ("ERROR",)),
        ("ERROR,FATAL", ("ERROR", "FATAL")),
        (" ERROR , FATAL ,", ("ERROR", "FATAL")),
        ('["ERROR"]', ('["ERROR"]',)),
    ],
)
def test_lists_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ENRICH_LEVELS", value)
    assert load_settings().enrich_levels == names


def test_excluded_indices_follow_the_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_INDEX_PATTERN", "a_*, b_*")
    monkeypatch.setenv("ENRICH_EXCLUDE_INDICES", "a_x_2026_01,b_y*")
    assert load_settings().index_expression == "a_*,b_*,-a_x_2026_01,-b_y*"


def test_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    Path(".env").write_text(
        "OPENAI_API_KEY=sk-file\nENRICH_BATCH_SIZE=7\nENRICH_LEVELS=ERROR,FATAL\n"
        "SOMEBODY_ELSES=1\nOPENSEARCH_PORT=9201\nOPENSEARCH_USER=\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("OPENSEARCH_PORT", "9202")
    loaded = load_settings()
    assert loaded.openai_api_key.get_secret_value() == "sk-file"
    assert loaded.enrich_batch_size == 7
    assert loaded.enrich_levels == ("ERROR", "FATAL")
    assert loaded.opensearch_port == 9202


def test_wrong_value_in_env_file_is_named_too() -> None:
    Path(".env").write_text("ENRICH_BATCH_SIZE=qqq\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^ENRICH_BATCH_SIZE: ") as refused:
        load_settings()
    assert "qqq" not in str(refused.value)


def test_empty_variable_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compose files pass on what is not set as empty.
    for name in Settings.model_fields:
        if name != "openai_api_key":
            monkeypatch.setenv(name.upper(), "")
    assert load_settings() == load()


def test_secrets_are_masked_everywhere() -> None:
    loaded = load_settings(
        openai_api_key="qqq-key",
        # Not a URL, though it looks like one.
        opensearch_password="qqq://secret",
        redis_url="rediss://user:qqq@redis:6380/1?ssl_cert_reqs=none",
        cache_url="rediss://cache/0?password=qqq&db=2&ssl_password=qqq",
    )
    shown = loaded.redacted()
    assert shown.keys() == {name.upper() for name in Settings.model_fields}
    assert shown["OPENAI_API_KEY"] == shown["OPENSEARCH_PASSWORD"] == "***"
    assert shown["REDIS_URL"] == "rediss://user:***@redis:6380/1?ssl_cert_reqs=none"
    assert shown["CACHE_URL"] == "rediss://cache/0?password=***&db=2&ssl_password=***"
    assert "qqq" not in " ".join([*shown.values(), repr(loaded), str(loaded)])


def test_of_addresses_and_headers_all_but_the_secrets_is_shown() -> None:
    loaded = load(
        opensearch_url="https://me:qqq@a:9200/search, https://b",
        opensearch_headers='{"X-Api-Key": "qqq", "x-tenant": "qqq"}',
    )
    shown = loaded.redacted()
    assert shown["OPENSEARCH_URL"] == "https://me:***@a:9200/search, https://b"
    assert shown["OPENSEARCH_HEADERS"] == '{"X-Api-Key": "***", "x-tenant": "***"}'
    assert load(opensearch_token="qqq").redacted()["OPENSEARCH_TOKEN"] == "***"
    assert "qqq" not in " ".join([*shown.values(), repr(loaded), loaded.opensearch_address])


def test_unset_secret_shows_as_unset() -> None:
    assert load().redacted()["OPENSEARCH_PASSWORD"] == ""
    assert load().redacted()["CACHE_URL"] == ""


PASSWORDS = st.text(st.characters(categories=("L", "N")), min_size=4).map("QQQ".__add__)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(PASSWORDS, st.sampled_from(["", "user"]), st.sampled_from(["", ":6379"]))
def test_no_password_survives_masking(password: str, user: str, port: str) -> None:
    url = f"redis://{user}:{password}@host{port}/0"
    assert without_password(url) == f"redis://{user}:***@host{port}/0"


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    st.sampled_from(["redis_url", "cache_url", "openai_base_url"]),
    st.sampled_from(["redis://", "sentinel://", "sentinel://x,", "rediss+sentinel://x;s://"]),
    st.text(),
)
def test_any_url_is_taken_or_refused_without_its_password(
    name: str, scheme: str, password: str
) -> None:
    secret = f"QQQ{password}QQQ"
    try:
        loaded = load(**{name: f"{scheme}user:{secret}@host/0"})
    except SettingsError as error:
        assert name.upper() in str(error)
        assert "QQQ" not in str(error)
    else:
        assert "QQQ" not in " ".join(loaded.redacted().values())


@settings(deadline=None, max_examples=120, derandomize=True)
@given(st.text())
def test_no_password_of_opensearch_shows(password: str) -> None:
    secret = f"QQQ{password}QQQ"
    try:
        loaded = load(opensearch_url=f"https://user:{secret}@host/x")
    except SettingsError as error:
        assert "OPENSEARCH_URL" in str(error)
        assert "QQQ" not in str(error)
    else:
        assert "QQQ" not in " ".join([*loaded.redacted().values(), loaded.opensearch_address])


# -- OpenSearch's address and login


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("https://a", ["https://a:443"]),
        ("http://A.example/", ["http://a.example:80"]),
        ("https://a:9200//opensearch/x/", ["https://a:9200/opensearch/x"]),
        ("https://[::1]:9200", ["https://[::1]:9200"]),
        (" https://b:1 , https://a:2/p,https://b:1/ ,", ["https://b:1", "https://a:2/p"]),
    ],
)
def test_a_url_names_nodes_with_their_paths(url: str, nodes: list[str]) -> None:
    loaded = load(opensearch_url=url)
    assert list(map(str, loaded.opensearch_nodes)) == nodes
    assert loaded.opensearch_address == ", ".join(sorted(nodes))


def test_host_and_port_are_one_node_as_ever() -> None:
    (node,) = load(opensearch_host="os", opensearch_port=9201).opensearch_nodes
    assert str(node) == "https://os:9201"
    assert load(opensearch_use_ssl=False).opensearch_address == "http://localhost:9200"
    assert load(opensearch_host="::1").opensearch_nodes[0].bare_host == "::1"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"opensearch_host": "b"}, "OPENSEARCH_URL and OPENSEARCH_HOST"),
        ({"opensearch_port": 9201}, "OPENSEARCH_URL and OPENSEARCH_PORT"),
        ({"opensearch_use_ssl": False}, "OPENSEARCH_URL and OPENSEARCH_USE_SSL"),
        ({"opensearch_user": "you"}, "OPENSEARCH_URL and OPENSEARCH_USER"),
        ({"opensearch_password": "other"}, "OPENSEARCH_URL and OPENSEARCH_PASSWORD"),
        ({"opensearch_token": "t"}, "user of OPENSEARCH_URL and OPENSEARCH_TOKEN.*one login"),
        ({"opensearch_auth": "aws"}, "user of OPENSEARCH_URL and OPENSEARCH_AUTH=aws"),
        ({"opensearch_headers": '{"Authorization": "x"}'}, "authorization in OPENSEARCH_HEADERS"),
    ],
)
def test_two_addresses_or_logins_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(opensearch_url="https://me:secret@a:9200", **values)


def test_the_same_address_twice_is_one() -> None:
    loaded = load(
        opensearch_url="https://me:p%40ss%2C@a:9200",
        opensearch_host="a",
        opensearch_port=9200,
        opensearch_use_ssl=True,
        opensearch_user="me",
        opensearch_headers='{"x-tenant": "t"}',
    )
    assert loaded.opensearch_login == ("me", "p@ss,")
    assert load(opensearch_url="https://a", opensearch_user="u").opensearch_login == ("u", "")


def test_a_client_certificate_needs_tls() -> None:
    with pytest.raises(SettingsError, match="OPENSEARCH_CLIENT_CERT needs https"):
        load(opensearch_client_cert="/x", opensearch_url="http://a")
    assert load(opensearch_client_cert="/x", opensearch_client_key="/y").opensearch_client_key


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"}, "needs KAFKA_SASL_MECHANISM"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "plain"},
            "needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_OAUTH_TOKEN_URL": "https://login/token",
                "KAFKA_OAUTH_CLIENT_ID": "me",
            },
            "needs KAFKA_OAUTH_CLIENT_SECRET",
        ),
    ],
)
def test_a_login_to_kafka_in_part_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], lacking: str
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=lacking):
        load_settings()
