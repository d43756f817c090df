"""The words and numbers by which logs say how grave they are, as ERROR, WARN or INFO."""

from __future__ import annotations

import re
from typing import Any

LEVELS = {
    **dict.fromkeys(("trace", "trce", "trc", "debug", "dbug", "dbg", "verbose", "vrb"), "INFO"),
    **dict.fromkeys(("fine", "finer", "finest", "config", "default", "t", "d", "v"), "INFO"),
    **dict.fromkeys(("info", "inf", "information", "informational", "notice", "log"), "INFO"),
    **dict.fromkeys(("i", "n", "정보", "情報", "信息", "success", "audit success"), "INFO"),
    **dict.fromkeys(("warn", "warning", "w", "wrn", "경고", "警告", "deprecated"), "WARN"),
    **dict.fromkeys(("error", "err", "e", "eror", "erro", "severe", "fatal", "fata"), "ERROR"),
    **dict.fromkeys(("critical", "crit", "fail", "failure", "ftl", "f", "c", "alert"), "ERROR"),
    **dict.fromkeys(("emerg", "emergency", "panic", "dpanic", "pani", "crt"), "ERROR"),
    **dict.fromkeys(("fehler", "schwerwiegend", "erreur", "grave"), "ERROR"),
    **dict.fromkeys(("warnung", "avertissement", "advertencia"), "WARN"),
    **dict.fromkeys(("오류", "에러", "심각", "エラー", "致命的", "错误", "严重"), "ERROR"),
}

#: In capitals, or in brackets in any case, these are a level wherever they stand near the head.
WORD = (
    r"(?:TRACE|DEBUG|FINE|FINER|FINEST|CONFIG|INFO|INFORMATION|NOTICE|WARN|WARNING|WRN|ERROR|ERR"
    r"|EROR|SEVERE|FATAL|CRITICAL|CRIT|ALERT|EMERG|EMERGENCY|PANIC|DPANIC|INF|DBG|FTL|VRB"
    r"|FEHLER|SCHWERWIEGEND|ERREUR|GRAVE|WARNUNG|AVERTISSEMENT|ADVERTENCIA|심각|경고|정보|오류)"
)
#: In small letters only these, right behind a time: others are words of a sentence, too.
SMALL = (
    r"(?:trace|debug|info|information|notice|warn|warning|error|err|severe|fatal|critical|crit"
    r"|emerg|panic|dpanic|Trace|Debug|Info|Information|Notice|Warn|Warning|Error|Severe|Fatal"
    r"|Critical)"
)

# pino and bunyan count upwards in tens, syslog downwards from 7; Python has its errors at 40.
_PINO = ((50, "ERROR"), (40, "WARN"), (0, "INFO"))
_PYTHON = ((40, "ERROR"), (30, "WARN"), (0, "INFO"))
_OTEL = ((17, "ERROR"), (13, "WARN"), (0, "INFO"))

# What no level introduces, and a person still reads as an error.
_ALARM = re.compile(
    r"Traceback \(most recent|Exception in thread|Unhandled [Ee]xception|Unhandled [Rr]ejection"
    r"|Uncaught |panic: |fatal error: |http: panic |thread '[^']*' (?:\(\d+\) )?panicked|FATAL"
    r"|PHP (?:Fatal|Parse|Core|Compile|Recoverable fatal) error|Fatal error: |Segmentation fault"
    r"|ORA-\d{5}: |\*\* \((?:[A-Z]\w*Error|EXIT|throw)|\*\* FATAL|Unhandled error"
    r"|(?:[A-Za-z_][\w$]*[.:]+)*[A-Z]?\w*(?:Error|Exception): "
    r"|[^\s:]+\.rb:\d+:in .*\([A-Z][\w:]*\)$"
    r"|(?:/|[A-Z]:\\|file://|node:)\S+:\d+$"
)
_SQL_SERVER = re.compile(r"(?:\S+\s+)?Error: \d+, Severity: (\d+), State: \d+")
_WARNED = re.compile(r"PHP (?:Core |Compile |User )?(?:Warning|Deprecated|Notice)")


def of_word(word: str) -> str | None:
    """The level that a word names, in any case."""
    return LEVELS.get(word.strip().lower())


def of_syslog(severity: int) -> str:
    """RFC 5424, 6.2.1: 0 to 3 are error and worse, 4 is a warning."""
    return "ERROR" if severity <= 3 else "WARN" if severity == 4 else "INFO"


def of_text(text: str) -> str | None:
    """The level of a text that no level introduces, by how programs report that they fail."""
    if match := _SQL_SERVER.match(text):
        # Severities up to 10 are messages.
        return "ERROR" if int(match[1]) > 10 else "INFO"
    if _WARNED.match(text):
        return "INFO" if "Notice" in text[:24] else "WARN"
    return "ERROR" if _ALARM.match(text) else None


def of_field(key: str, value: Any, *, windows: bool = False) -> str | None:
    """The level in a field of JSON.

    Args:
        key: the field's name in small letters, which tells what its numbers mean.
        windows: the record is of the Windows event log, where 1 is critical and 4 information.
    """
    if isinstance(value, str):
        if not value.strip().isdigit():
            word = value.strip().rpartition(".")[2]
            return of_word(word)
        value = int(value.strip())
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        return None
    if key in ("severitynumber", "severity_number"):
        scale = _OTEL
    elif key in ("levelno", "level_no"):
        scale = _PYTHON
    elif windows and value < 10:
        return "INFO" if value in (0, 4, 5) else "WARN" if value == 3 else "ERROR"
    elif value < 8 and key != "levelvalue":
        return of_syslog(int(value))
    elif value >= 1000:
        # java.util.logging and logback: 40000 and 1000 are errors.
        return "ERROR" if value in (1000, 40000, 50000) else "WARN" if value == 30000 else "INFO"
    else:
        scale = _PINO
    return next((level for least, level in scale if value >= least), None)
