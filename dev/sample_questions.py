"""Questions in other words about the sample failures, by which a model is judged.

A model is worth showing if the right failure is among the first three distinct texts for at least
four questions of five.
"""

from __future__ import annotations

#: Each question with the kinds of failure, as in dev/failures, that answer it.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "host name lookup does not work": ("dns-unknown-host",),
    "cache server has no room left in RAM": ("redis-oom",),
    "no space left on the drive": ("disk-full", "sql-full"),
    "SSL cert is out of date": ("tls-expired",),
    "somebody else is holding the database": ("sql-locked", "lock-timeout"),
    "duplicate key in a table": ("sql-unique",),
    "the shop's card machine cannot be reached": ("socket-refused", "socket-timeout"),
    "API credential is invalid": ("openai-401",),
    "we sent too many requests to the API": ("openai-429", "openai-quota"),
    "billing limit of the AI provider is exhausted": ("openai-quota", "openai-429"),
    "division by zero": ("zero-division",),
    "malformed JSON in a message": ("json-decode", "json-too-deep", "json-serialise"),
    "endless recursion": ("recursion-simple", "recursion-long"),
    "user is not allowed to access a file": ("permission-denied",),
    "email could not be sent": ("smtp-disconnected",),
    "the program was killed because it used too much memory": (
        "memory-error", "process-pool-broken",
    ),
    "login expired": ("token-expired",),
    "signature of a callback is wrong": ("hmac-mismatch",),
    "self-signed certificate": ("tls-self-signed",),
    "port is occupied by another program": ("address-in-use",),
    "데이터베이스가 잠겨 있음": ("sql-locked", "lock-timeout"),
    "인증서 만료": ("tls-expired",),
    "디스크 용량이 부족함": ("disk-full", "sql-full"),
    "도메인 조회 실패": ("dns-unknown-host",),
    "결제 서버에 접속할 수 없음": ("requests-refused", "socket-refused"),
    "메모리 부족": ("memory-error", "redis-oom"),
    "권한이 없어서 실행할 수 없음": ("permission-denied",),
    "응답이 너무 늦어서 중단됨": (
        "requests-read-timeout", "redis-timeout", "socket-timeout", "opensearch-timeout",
        "openai-timeout", "asyncio-timeout", "futures-timeout", "subprocess-timeout",
    ),
    "파일을 찾을 수 없음": ("file-not-found",),
    "로그인이 만료됨": ("token-expired",),
}  # fmt: skip
