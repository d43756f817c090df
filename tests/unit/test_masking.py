"""Masking: what is found, what is left alone, and that hostile texts cost no more than their size.

The tables are the specification. A pattern that backtracks would stand still at the hostile texts:
that the test ends is the bound, no clock is read.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enrich.settings import load_settings
from enrich.text.extract import MAX_TEXT_BYTES, fingerprint, text_of
from enrich.text.masking import KINDS, Masker, expanded, masked_places, masker_of

EVERYTHING = Masker(["all"])

#: Each text holds its secrets in «»; without them it is what is masked.
FOUND: dict[str, list[str]] = {
    "email": [
        "no account «jane.doe+test@mail.example.co.kr».",
        "메일 «hong@example.com»로 보냄",
        "to=<«a_b-c@x.io»>,",
        "GET /confirm?address=«jane%40example.com»&x=1",
        "«a@b.co»,«c@d.org»;«e@f.net»",
        "«" + "x" * 200 + "@example.com»",
    ],
    "ip": [
        "refused by «10.1.2.3»:9200",
        "from «203.0.113.7».",
        "«192.168.0.1»/24 -> «172.16.0.9»",
        "http://«10.0.0.5»:8080/health",
        "range «10.0.0.1»-«10.0.0.9»",
        "주소 «10.0.0.5»에서",
        "peer [«2001:db8::8a2e:370:7334»]:443",
        "«fe80::1»%eth0",
        "«2001:0db8:85a3:0000:0000:8a2e:0370:7334» timed out",
        "mapped «::ffff:203.0.113.7».",
        "host «ip-10-0-12-7».ec2.internal",
    ],
    "card": [
        "card «4111111111111111» declined",
        "«4111 1111 1111 1111»",
        "«5500-0055-5555-5559»,",
        "amex «3782 822463 10005»",
        "«378282246310005»",
        "diners «30569309025904»",
        "카드 «6011111111111117»번",
        "«2223003122003222»",
    ],
    "phone": [
        "call «010-1234-5678» now",
        "연락처: «010-123-4567»로",
        "«01012345678»",
        "«010.1234.5678», «010 1234 5678»",
        "«011-234-5678»",
        "«+82-10-1234-5678»",
        "«+82 10 1234 5678».",
        "«+821012345678»",
        "«82-10-1234-5678»",
        "«02-123-4567» «02-1234-5678» «031-123-4567» «070-1234-5678»",
        "«02)123-4567» «(02) 1234-5678»",
        "«+1 (555) 234-5678»",
        "«+14155552671»",
        "«+49 30 901820-12»",
        "«(415) 555-2671» «415-555-2671» «1-415-555-2671»",
    ],
    "credential": [
        "password=«hunter2»",
        "password: «hunter2», user: x",
        "PASSWORD = «hunter2»;encrypt=true",
        "DB_PASSWORD=«hunter2»",
        "spring.datasource.password=«p@ss:w0rd!»",
        '{"password": "«hunter2 with, spaces»", "user": "x"}',
        r'{"password":"«a\"b»"}',
        r'body={\"password\":\"«hunter2»\",\"user\":\"x\"}',
        "{'api_key': '«abc»'}",
        '{"client_secret" => "«abc»"}',
        "<password>«hunter2»</password>",
        "비밀번호: «가나다라1»",
        "?access_token=«abc.def»&state=1",
        "X-Api-Key: «abc-123»",
        "AWS_SECRET_ACCESS_KEY=«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
        "AccountKey=«abc+/=»;EndpointSuffix=core",
        "user=root pass=«hunter2» host=db",
        "Authorization: Bearer «abc.def-ghi»",
        "'Authorization': 'Basic «dXNlcjpwYXNz»'",
        "authorization=«abcdef»",
        "sent bearer «a1b2c3d4e5»",
        "sent Basic «dXNlcjpwYXNz»",
        "mysqldump --password «hunter2» --host db",
        "tool --db-token «abc»",
        "postgres://«app:s3cret»@db:5432/app",
        "redis://«:s3cr@t»@10-0:6379/0",
        "https://«ghp0123»@github.example/x.git",
        "jwt «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P»",
        "key «AKIAIOSFODNN7EXAMPLE» refused",
        "«ASIAIOSFODNN7EXAMPLE»",
        "Incorrect API key provided: «sk-proj-abcdefghijklmnop1234»",
        "«ghp_abcdefghijklmnopqrstuvwxyz0123456789»",
        "«xoxb-1234567890-abcdefghij»",
        "«AIzaSyA1234567890abcdefghijklmnopqrstuv»",
        "«sk_live_abcdefghijklmnop1234»",
        "Cookie: «session=abc; theme=dark»",
        "Set-Cookie: «id=a3fWa; Path=/; HttpOnly»\nnext",
        "«-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA75\n" * 3
        + "Ag==\n-----END RSA PRIVATE KEY-----» end",
        r"«-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\nAg==\n-----END PRIVATE KEY-----» end",
        "«-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75» was cut",
    ],
}  # fmt: skip

LEFT_ALONE = [
    # times and offsets
    "2026-11-22T18:16:04.123+0900", "2026-11-22 18:16:04,123 +09:00", "18:16:04", "12:34:56.789",
    "1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "took 1234567890 ms",
    "[22/Nov/2026:18:16:04 +0000]", "Sun Nov 22 18:16:04 UTC 2026", "20261122181604",
    # ids
    "trace 4bf92f3577b34da6a3ce929d0e0e4736", "span 00f067aa0ba902b7",
    "123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000",
    "order 4111111111111112", "0x7ffd1234abcd", "Order@1b2c3d4e", "com.acme.Order@5e9f23b4",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 27dd8e2", "mac 00:1b:44:11:3a:b7", "id 01-02-2024", "4242.4242424242424242",
    # places in code
    "at com.acme.Order.save(Order.java:4242)", 'File "/srv/app.py", line 1234, in run',
    "main.go:128 +0x1d", "goroutine 18 [running]:", "std::vector<int>", "Abc::Def", "Foo::Bar.baz",
    "tests/test_a.py::test_b", "src/main.rs:10:5", "'2020'::date", "x::y", "@Override", "a @ b",
    # versions
    "v1.2.3.4", "version 1.2.3.4", "Version: 1.2.3.4", "Chrome/120.0.6099.109", "tool/1.2.3.4",
    "lib-1.2.3.4.jar", "1.2.3.4-SNAPSHOT", "lodash@4.17.21", "1.2.3", "1.2.3.4.5", "999.1.2.3",
    "kernel 5.15.0-1053-aws", "1.2.3.4.Final",
    # what every machine has
    "127.0.0.1:9200", "0.0.0.0", "::1", "[::]:80",
    # words
    "basic authentication failed", "Bearer authentication required", "wrong password",
    "password is missing", "invalid token", "Unexpected token: }", "unexpected token: foo",
    "tokens: 512", "token_type=bearer", "secretName is unset", "passwordless: yes",
    "the passwords: differ", "bypass=1", "pass: 5, fail: 0", "cookie: rejected by policy",
    "eyJ", "sk-1", "http://host/a@b", "http://host:80/x", "mailto:", "user@", "@host", "a@b",
    "+0900", "delta +12345678 bytes", "1e+10", "1-2-3", "(1234) 567",
]  # fmt: skip


def cases() -> list[Any]:
    return [pytest.param(k, t, id=f"{k}-{n}") for k, ts in FOUND.items() for n, t in enumerate(ts)]


def without_marks(text: str) -> str:
    return text.replace("«", "").replace("»", "")


@pytest.mark.parametrize(("kind", "marked"), cases())
def test_is_masked(kind: str, marked: str) -> None:
    expected = re.sub("«[^»]*»", f"[masked {kind}]", marked)
    masked = Masker([kind])(without_marks(marked))
    assert masked == expected
    assert masked_places(masked) == marked.count("«") > 0


@pytest.mark.parametrize(("kind", "marked"), cases())
def test_every_kind_together_leaves_none_of_it_and_masks_nothing_twice(
    kind: str, marked: str
) -> None:
    masked = EVERYTHING(without_marks(marked))
    for secret in re.findall("«([^»]*)»", marked):
        assert secret not in masked
    assert EVERYTHING(masked) == masked


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_is_left_alone(text: str) -> None:
    assert EVERYTHING(text) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_not_chosen_stays(kind: str) -> None:
    only = Masker([kind])
    for other, texts in FOUND.items():
        if other != kind:
            assert f"[masked {other}]" not in "".join(only(without_marks(t)) for t in texts)


SECRETS = st.sampled_from([without_marks(text) for texts in FOUND.values() for text in texts])
PIECES = st.lists(SECRETS | st.text(max_size=8), max_size=6).map(" ".join)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(PIECES)
@example("")
def test_any_text_is_masked_and_no_longer_than_its_placeholders(text: str) -> None:
    masked = EVERYTHING(text)
    # Every placeholder stands for one character at least.
    assert len(masked) <= len(text) * len("[masked credential]")
    text.encode(errors="replace")


#: Grown to a size at which a quadratic pattern would take 10^11 steps, a cubic one for ever.
HOSTILE = [
    "a", "a@", "a.", "x@a.", "@", "%40", "a.b@c.", "1", "1.", "1.2.3.4", "255.", ":", "::", "a:",
    "f", "f:", "1 ", "1-", "1234-", "1234 ", "4111111111111111", "+", "+1", "+1 2", "(", "(02)",
    "010-", "82", "555-", "eyJ", "eyJ-", "eyJaaaaa.", "sk-", "ghp_", "AKIA", "://", "://a@",
    "://a:",
    "password", "password=", "password='", 'password="', 'password="\\', "password=\\",
    "password \t",
    r"password=\"x", "secret" + " " * 4, "token:token", "bearer ", "Bearer a1",
    "authorization: bearer ",
    "cookie=", "cookie: a=", "--", "--a-", "a-", "--password ", "\\", '\\"', "'", '"', " ", "\n",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN A A A ",
    "MIIEpAIBAAKCAQEA\n",
    "ip-1-1-1-1-", "비밀번호", "비밀번호=", "[masked ", "[masked credential]", "\ud800", "😀",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("start", ["", "://", "x@", 'password="', "-----BEGIN PRIVATE KEY-----\n"])
def test_hostile_texts_cost_no_more_than_their_size(piece: str, start: str) -> None:
    size = 300_000 if not start else 50_000
    text = start + piece * (size // len(piece))
    assert len(EVERYTHING(text)) <= len(text) * len("[masked credential]")


def test_logs_that_differ_in_what_is_masked_share_a_text() -> None:
    texts = {
        text_of({"message": f"no route to {address} for {name}@example.com"}, EVERYTHING)
        for address in ("10.0.0.1", "2001:db8::5")
        for name in ("jane", "joe")
    }
    assert texts == {"no route to [masked ip] for [masked email]"}
    assert len({fingerprint(text) for text in texts}) == 1


def test_a_secret_across_the_cut_is_masked() -> None:
    """Masked after the cut, a part of it would be left on either side."""
    secret = "sk-" + "abcdefgh12" * 10
    for before in range(5_250, 5_420):
        message = "x" * before + " " + secret + " " + "y" * 9_000
        text = text_of({"message": message}, EVERYTHING)
        assert "abcdefgh12" not in text
        assert len(text.encode()) <= MAX_TEXT_BYTES


def test_without_a_masker_a_text_is_as_it_is() -> None:
    message = "password=hunter2 a@b.co"
    assert text_of({"message": message}) == message
    assert masker_of(()) is None


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("", ()),
        ("email", ("email",)),
        ("phone, Email ,phone", ("email", "phone")),
        ("all", KINDS),
        ("ip,all", KINDS),
    ],
)
def test_the_setting(value: str, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("ENRICH_MASK", value)
    assert load_settings(_env_file=None).enrich_mask == kinds
    assert load_settings(_env_file=None).redacted()["ENRICH_MASK"] == ",".join(kinds)


def test_an_unknown_kind_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="must be all, or some of card, credential") as refused:
        expanded(["email", "qqq"])
    assert "qqq" not in str(refused.value)
