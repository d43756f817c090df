"""Multiplies captured failures and ordinary lines into as many logs as are asked for.

What is repeated, and how often, follows the shape of production logs: a few texts make up most of
the errors (Zipf), the rest vary in their ids, hosts and durations. Everything comes from one seeded
random source, so the same call gives the same bytes.
"""

from __future__ import annotations

import calendar
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from typing import Any

from dev.failures import Failure, Ordinary

#: Project ids as they stand in index names, with their share of all logs.
PROJECTS: dict[str, float] = {
    "5f0c2a91_7d3e_4b58_9a16_c2e8d4f7b301": 0.6,
    "a83b64de_1c97_4f02_8e5d_0b7f3961ac24": 0.3,
    "d91e7f40_62ab_4c8d_b3f5_48a0c6e2759d": 0.1,
}
MONTHS: tuple[str, ...] = ("2026-10", "2026-11")

ERROR_SHARE = 0.4
_WARN_SHARE_OF_ORDINARY = 0.25
_KOREAN_SHARE = 0.08
_LONG_SHARE = 0.015
#: From here on a message counts as long; the longest are about 30,000.
LONG_CHARACTERS = 12_000
_LONGEST_CHARACTERS = 30_000
# Attempts to find one more distinct text, after which the failures given have no more to offer.
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class SampleLog:
    index: str
    id: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Text:
    """A message cut at its placeholders."""

    service_name: str
    logger: str
    #: What stands before, between and after the placeholders.
    parts: tuple[str, ...]
    #: The names of the placeholders, each once: one log names one host, however often.
    slots: tuple[str, ...]
    #: For each gap between two parts, which of the slots fills it.
    gaps: tuple[int, ...]


# What the captured placeholders stand for.

_HOSTS = [f"10.{20 + i % 3}.{i % 7}.{11 + i}" for i in range(48)]
_NODES = [f"{role}-{i:02d}" for role in ("app", "worker", "edge") for i in range(1, 9)]
_THREADS = ["MainThread", *(f"ThreadPoolExecutor-0_{i}" for i in range(12))]
_REGIONS = ["eu-central", "ap-northeast", "us-east"]
_VERSIONS = [f"2026.{week}.{build}" for week in range(38, 48) for build in (0, 1, 2)]
_RESOLVER_ANSWERS = [
    "[Errno -2] Name or service not known",
    "[Errno -3] Temporary failure in name resolution",
]
_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_FILL: dict[str, Callable[[random.Random], str]] = {
    "addr": lambda r: f"7f{r.getrandbits(40) & ~0xF:010x}",
    "campaign": lambda r: f"C{r.randrange(100, 400)}",
    "customer": lambda r: str(r.randrange(100_000, 999_999)),
    "depth": lambda r: str(r.randrange(920, 990)),
    "host": lambda r: r.choice(_HOSTS),
    "id": lambda r: "".join(r.choices(_ID_CHARACTERS, k=22)),
    "ms": lambda r: str(int(r.lognormvariate(6, 1)) + 1),
    "n": lambda r: str(r.randrange(1, 500)),
    "node": lambda r: f"search-data-{r.randrange(1, 7)}",
    "order": lambda r: str(r.randrange(40_000_000, 49_999_999)),
    "port": lambda r: str(r.choice((6379, 8080, 8443, 9200, r.randrange(30_000, 33_000)))),
    "report": lambda r: f"R-{r.randrange(1000, 9999)}",
    "resolver": lambda r: r.choice(_RESOLVER_ANSWERS),
    "s": lambda r: f"{r.lognormvariate(-1, 1):.3f}",
    "sku": lambda r: f"{r.choice('ABCDEFGH')}-{r.randrange(100, 10_000)}",
    "supplier": lambda r: f"S{r.randrange(10, 90)}",
    "uuid": lambda r: _uuid(r.getrandbits(128)),
    "warehouse": lambda r: r.choice(("Hamburg", "Busan", "Incheon", "Lyon", "Dallas")),
}
_SLOT = re.compile(r"\{(" + "|".join(_FILL) + r")\}")

#: What an operator's log line says in Korean above the traceback of these kinds.
KOREAN: dict[str, str] = {
    "requests-refused": "결제 서버 연결이 거부되었습니다: 주문번호 {order}",
    "socket-refused": "카드 단말기 연결이 거부되었습니다",
    "redis-refused": "세션 캐시 서버에 연결할 수 없습니다: 고객 {customer}",
    "opensearch-refused": "상품 검색을 사용할 수 없습니다: 검색 서버 연결 거부",
    "dns-unknown-host": "택배사 서버의 도메인 이름을 찾을 수 없습니다",
    "requests-read-timeout": "배송비 조회 시간이 초과되었습니다: 주문번호 {order}",
    "redis-timeout": "장바구니를 불러오지 못했습니다. 캐시 응답 시간 초과: 고객 {customer}",
    "remote-disconnected": "결제 대행사가 응답 없이 연결을 종료했습니다",
    "tls-expired": "통합 로그인 서버의 인증서가 만료되었습니다",
    "tls-self-signed": "신뢰할 수 없는 인증서입니다: 원장 서버",
    "http-500": "결제 대행사 내부 오류로 결제에 실패했습니다: 주문번호 {order}",
    "http-503": "창고 시스템 과부하로 재고를 확보하지 못했습니다: 주문번호 {order}",
    "openai-429": "임베딩 요청 한도를 초과했습니다",
    "json-decode": "주문 메시지가 올바른 JSON 형식이 아닙니다",
    "unicode-decode": "상품명의 문자 인코딩이 UTF-8이 아닙니다",
    "unicode-encode": "문자 메시지를 인코딩할 수 없습니다: 고객 {customer}",
    "pydantic-validation": "주문 항목 값이 올바르지 않아 주문이 거절되었습니다",
    "missing-key": "상품 가격 정보가 없습니다: 상품 {sku}",
    "zero-division": "전환율을 계산할 수 없습니다: 방문 수가 0입니다",
    "memory-error": "모델 학습 중 메모리가 부족합니다",
    "disk-full": "디스크 공간이 부족하여 보고서를 저장하지 못했습니다: {report}",
    "permission-denied": "월 마감 작업을 실행할 권한이 없습니다",
    "file-not-found": "청구서 양식 파일이 없습니다",
    "lock-timeout": "재고 예약에서 교착 상태가 의심됩니다: 상품 {sku}",
    "queue-full": "알림 발송 대기열이 가득 찼습니다",
    "sql-locked": "재고를 갱신하지 못했습니다. 다른 프로세스가 데이터베이스를 잠그고 있습니다",
    "sql-unique": "중복된 주문번호입니다: {order}",
    "token-expired": "로그인 토큰이 만료되었습니다: 고객 {customer}",
    "hmac-mismatch": "결제 알림의 서명이 일치하지 않습니다",
    "redis-oom": "캐시 메모리가 가득 차 세션을 저장하지 못했습니다: 고객 {customer}",
    "redis-wrong-type": "장바구니 데이터 형식이 잘못되었습니다: 고객 {customer}",
    "opensearch-mapping": "주문 문서가 색인 매핑과 맞지 않습니다: 주문번호 {order}",
    "opensearch-no-index": "주문 검색에 실패했습니다: 색인이 존재하지 않습니다",
}


def project_with_most_logs() -> str:
    """Its id, as the service is asked for it."""
    return max(PROJECTS, key=lambda project: PROJECTS[project]).replace("_", "-")


def generate(
    count: int,
    *,
    errors: int | None = None,
    seed: int = 7,
    failures: Sequence[Failure],
    ordinary: Sequence[Ordinary],
    distinct_share: float = 0.3,
    months: Sequence[str] = MONTHS,
) -> Iterator[SampleLog]:
    """Yield `count` logs, `errors` of them (by default 40 %) with level ERROR.

    About `distinct_share` of the ERROR messages are distinct texts, as far as the failures given
    have enough that varies. `months` are "YYYY-MM"; timestamps lie in them.

    Raises:
        ValueError: a number that can't be met, or nothing given to multiply.
    """
    if errors is None:
        errors = round(count * ERROR_SHARE)
    if not 0 <= errors <= count:
        raise ValueError(f"errors must lie between 0 and {count}, not {errors}")
    if not 0 < distinct_share <= 1:
        raise ValueError(f"distinct_share must lie above 0 and up to 1, not {distinct_share}")
    if (errors and not failures) or (errors < count and not ordinary):
        raise ValueError("there is nothing to multiply: failures or ordinary lines are missing")
    return _generate(count, errors, seed, failures, ordinary, distinct_share, months)


def _generate(
    count: int,
    errors: int,
    seed: int,
    failures: Sequence[Failure],
    ordinary: Sequence[Ordinary],
    distinct_share: float,
    months: Sequence[str],
) -> Iterator[SampleLog]:
    random_ = random.Random(seed)
    draw = random_.random
    error_texts = _error_texts(random_, errors, failures, distinct_share)
    calm_texts = _ordinary_texts(random_, ordinary)
    projects = list(PROJECTS)
    project_bounds = list(accumulate(PROJECTS.values()))
    calendar_ = [_month(month) for month in months]

    errors_left = errors
    for left in range(count, 0, -1):
        # Each of the logs left is an error with the chance that makes the number come out exactly.
        if draw() * left < errors_left:
            errors_left -= 1
            level = "ERROR"
            text, values = next(error_texts)
        else:
            level, text = next(calm_texts)
            values = tuple(_FILL[slot](random_) for slot in text.slots)
        at = draw()
        project = projects[(at >= project_bounds[0]) + (at >= project_bounds[1])]
        suffix, days = calendar_[int(draw() * len(calendar_))]
        second, millisecond = divmod(int(draw() * 86_400_000), 1000)
        minute, second = divmod(second, 60)
        bits = random_.getrandbits(256)
        log_id = _uuid(bits & _MASK_128)
        duration = draw()
        yield SampleLog(
            f"{project}_{suffix}",
            log_id,
            {
                "level": level,
                "message": _join(text, values),
                "timestamp": f"{days[int(draw() * len(days))]}{minute // 60:02d}:"
                f"{minute % 60:02d}:{second:02d}.{millisecond:03d}Z",
                "service_name": text.service_name,
                "trace_id": f"{bits >> 128:032x}",
                "log_id": log_id,
                "host": _NODES[int(draw() * len(_NODES))],
                "logger": text.logger,
                "thread": _THREADS[int(draw() * len(_THREADS))],
                # Most are short, few very long.
                "duration_ms": round(1 + 40 * duration / (1.001 - duration), 1),
                "labels": {
                    "region": _REGIONS[int(draw() * 3)],
                    "version": _VERSIONS[int(draw() * len(_VERSIONS))],
                    "attempt": 1 + int(draw() * 1.2),
                },
            },
        )


_MASK_128 = (1 << 128) - 1


def _month(month: str) -> tuple[str, list[str]]:
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"a month is written YYYY-MM, not {month!r}") from error
    length = calendar.monthrange(first.year, first.month)[1]
    days = [(first + timedelta(days=day)).strftime("%Y-%m-%dT") for day in range(length)]
    return first.strftime("%Y_%m"), days


def _error_texts(
    random_: random.Random, errors: int, failures: Sequence[Failure], distinct_share: float
) -> Iterator[tuple[_Text, tuple[str, ...]]]:
    """The messages of all errors in their order, as a text and the values of its slots."""
    groups = {
        "korean": [
            _parse(failure, _in_korean(failure))
            for failure in failures
            if failure.kind in KOREAN and len(failure.message) < LONG_CHARACTERS
        ],
        "long": _long_texts(failures),
        "plain": [
            _parse(failure, failure.message)
            for failure in failures
            if len(failure.message) < LONG_CHARACTERS
        ],
    }
    sizes = {
        "korean": round(errors * _KOREAN_SHARE) if groups["korean"] else 0,
        "long": round(errors * _LONG_SHARE) if groups["long"] else 0,
    }
    sizes["plain"] = errors - sum(sizes.values())
    if not groups["plain"]:
        groups["plain"] = groups["long"]
    chosen = list(
        chain.from_iterable(
            _repeated(random_, groups[name], size, round(size * distinct_share))
            for name, size in sizes.items()
        )
    )
    random_.shuffle(chosen)
    return iter(chosen)


def _repeated(
    random_: random.Random, texts: list[_Text], count: int, distinct: int
) -> Iterator[tuple[_Text, tuple[str, ...]]]:
    """`count` messages of which about `distinct` are distinct, the first ones by far most often."""
    if not count:
        return
    texts = random_.sample(texts, len(texts))
    # Flatter than Zipf's law: every kind is to be seen, also among few logs.
    bounds = list(accumulate(1 / (rank + 10) for rank in range(len(texts))))
    known: dict[tuple[_Text, tuple[str, ...]], None] = {}
    for position in range(max(distinct, 1)):
        for _ in range(_ATTEMPTS):
            text = (
                texts[position]
                if position < len(texts)
                else random_.choices(texts, cum_weights=bounds)[0]
            )
            message = (text, tuple(_FILL[slot](random_) for slot in text.slots))
            if message not in known:
                known[message] = None
                break
    messages = list(known)
    yield from messages
    weights = list(accumulate(1 / rank for rank in range(1, len(messages) + 1)))
    yield from random_.choices(messages, cum_weights=weights, k=count - len(messages))


def _long_texts(failures: Sequence[Failure]) -> list[_Text]:
    """Long messages as they are, and chains that services build when each logs its cause whole."""
    whole = [failure for failure in failures if len(failure.message) >= LONG_CHARACTERS]
    texts = [_parse(failure, failure.message) for failure in whole]
    pieces = sorted(
        (failure for failure in failures if 2_000 <= len(failure.message) < LONG_CHARACTERS),
        key=lambda failure: failure.kind,
    )
    for start in range(0, len(pieces), 4):
        joined = ""
        for piece in pieces[start:] + pieces[:start]:
            following = joined + ("\nCaused by: " if joined else "") + piece.message
            if len(following) > _LONGEST_CHARACTERS:
                break
            joined = following
        if len(joined) >= LONG_CHARACTERS:
            texts.append(_parse(pieces[start], joined))
    return texts


def _in_korean(failure: Failure) -> str:
    """The Korean line, the error itself behind it as operators write it, and the traceback."""
    _, newline, traceback = failure.message.partition("\n")
    last = traceback.rstrip().rpartition("\n")[2].strip()
    error = f" ({last})" if len(last) < 160 and newline else ""
    return f"{KOREAN[failure.kind]}{error}{newline}{traceback}"


def _ordinary_texts(
    random_: random.Random, ordinary: Sequence[Ordinary]
) -> Iterator[tuple[str, _Text]]:
    by_level: dict[str, list[_Text]] = {"INFO": [], "WARN": []}
    for line in ordinary:
        by_level[line.level].append(_parse(line, line.message))
    calm, warning = by_level["INFO"] or by_level["WARN"], by_level["WARN"] or by_level["INFO"]
    names = ("INFO" if by_level["INFO"] else "WARN", "WARN" if by_level["WARN"] else "INFO")
    draw = random_.random
    while True:
        # The square leans towards the first of the list.
        if draw() < _WARN_SHARE_OF_ORDINARY:
            yield names[1], warning[int(draw() ** 2 * len(warning))]
        else:
            yield names[0], calm[int(draw() ** 2 * len(calm))]


def _parse(source: Failure | Ordinary, message: str) -> _Text:
    pieces = _SLOT.split(message)
    slots = tuple(dict.fromkeys(pieces[1::2]))
    gaps = tuple(slots.index(slot) for slot in pieces[1::2])
    return _Text(source.service_name, source.logger, tuple(pieces[::2]), slots, gaps)


def _join(text: _Text, values: tuple[str, ...]) -> str:
    parts = text.parts
    if not values:
        return parts[0]
    filled = [values[gap] for gap in text.gaps]
    return parts[0] + "".join(chain.from_iterable(zip(filled, parts[1:], strict=True)))


def _uuid(bits: int) -> str:
    # Version 4, variant 1, as RFC 9562 section 5.4 has it.
    digits = f"{bits & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
