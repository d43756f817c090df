"""Takes out of a captured text what differs between machines, checkouts and runs.

Paths become those of a service installed in /srv/app; ports, addresses, ids, times become named
placeholders, which dev/sample_logs.py fills from its seeded random source. What is left is the same
text wherever the same versions of Python and of the libraries are installed.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from dev.failures.kinds import Site

_APP = "/srv/app"
_LIBRARY = "/usr/lib/python3.11"
_PACKAGES = _APP + "/.venv/lib/python3.11/site-packages"
_DATA = "/var/lib/app"

# How glibc answers for an unknown name depends on whether a resolver can be reached.
_RESOLVER = re.compile(
    r"\[Errno -2\] Name or service not known|\[Errno -3\] Temporary failure in name resolution"
)
_SITE_PACKAGES = re.compile(r"[^\s\"']*/(?:site|dist)-packages(?=/)")

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_RESOLVER, "{resolver}"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,16}\b"), "0x{addr}"),
    (re.compile(r"127\.0\.0\.1:\d+|localhost:\d+|\[::1\]:\d+"), "{host}:{port}"),
    (re.compile(r"(?:127\.0\.0\.1|localhost)\s+port \d+"), "{host} port {port}"),
    (re.compile(r"\b127\.0\.0\.1\b"), "{host}"),
    (re.compile(r"\bport[=:] ?\d+"), "port={port}"),
    # How deep the stack was at the call differs by what called.
    (re.compile(r"repeated \d+ more times"), "repeated {depth} more times"),
    (re.compile(r"timed out after \d+\.\d+ seconds"), "timed out after {s} seconds"),
    (re.compile(r"\bTask-\d+"), "Task-{n}"),
    (re.compile(r"(?<=RemoteTransportException\[\[)[^\]]+"), "{node}"),
)
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
# OpenSearch's node and index ids, 22 characters of URL-safe base64, where it writes them. (By their
# letters alone they can't be told from a class name of 22 letters.)
_SERVER_ID = re.compile(
    r"(?:(?<=/)|(?<=\{)|(?<=\{\[)|(?<=ID \[)|(?<=UUID set to \[)|(?<=uuid': '))[\w-]{22}(?=[]}'])"
)


def normalise(text: str, site: Site) -> str:
    """Return `text` with placeholders for all that varies."""
    for found, shown in _replacements(site):
        text = text.replace(found, shown)
    text = _SITE_PACKAGES.sub(_PACKAGES, text)
    for pattern, placeholder in _PATTERNS:
        text = pattern.sub(placeholder, text)
    # Ports of the stand-ins are above 32,767 by rule, so no line number is mistaken for one.
    for port in (site.closed_port, site.silent_port, site.resetting_port, site.http_port):
        text = re.sub(rf"\b{port}\b", "{port}", text)
    text = _UUID.sub("{uuid}", text)
    return _SERVER_ID.sub("{id}", text)


def _replacements(site: Site) -> Iterable[tuple[str, str]]:
    rooms = Path(__file__).parent
    known = {
        str(site.folder): _DATA,
        site.mark: "",
        "dev.failures.": "",
        str(rooms): _APP,
        str(rooms.parent.parent): _APP,
        sysconfig.get_path("stdlib"): _LIBRARY,
        sysconfig.get_path("platstdlib"): _LIBRARY,
        sysconfig.get_path("purelib"): _PACKAGES,
        sysconfig.get_path("platlib"): _PACKAGES,
        os.path.dirname(os.__file__): _LIBRARY,
        sys.executable: _APP + "/.venv/bin/python",
    }
    known |= {os.path.realpath(path): shown for path, shown in known.items() if "/" in path}
    # The longest first: a virtual environment may lie within the checkout, the checkout in it.
    return sorted(known.items(), key=lambda item: len(item[0]), reverse=True)
