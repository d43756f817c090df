"""Masking: personal data and credentials taken out of a text before it leaves for the API. Pure.

Each kind is a few patterns; what they find is replaced by `[masked <kind>]`, so that logs which
differ only in an address share one text, one fingerprint and one payment. Every pattern reads a
text in a number of steps proportional to its length, whatever it holds: an unbounded run is
possessive, and starts only where no run is under way. What is and is not found: docs/security.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from enrich.text.kinds import Replacing, Rule, chosen_of

#: In the order in which they are masked: a credential may hold an address, an address a number.
KINDS = ("credential", "email", "ip", "card", "phone")

_PLACEHOLDER = re.compile(rf"\[masked (?:{'|'.join(KINDS)})\]")


class Masker(Replacing):
    """Masks the chosen kinds in texts."""

    def __init__(self, kinds: Iterable[str]) -> None:
        """Raises ValueError for a kind that is not known."""
        super().__init__(expanded(kinds), _RULES)


def expanded(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds in the order of KINDS, each once. Raises ValueError, as `chosen_of`."""
    return chosen_of(kinds, KINDS)


def masker_of(kinds: Iterable[str]) -> Masker | None:
    """A masker, or None where nothing is to be masked."""
    chosen = expanded(kinds)
    return Masker(chosen) if chosen else None


def masked_places(text: str) -> int:
    """How many places of a text, as it is sent, were masked."""
    return len(_PLACEHOLDER.findall(text))


def _pattern(text: str) -> re.Pattern[str]:
    # ASCII: a Korean particle ends a number or an address, it is no part of it.
    return re.compile(text, re.ASCII | re.VERBOSE)


def _by(kind: str, pattern: str) -> Rule:
    """Replaces the match, except its group `before`."""
    compiled = _pattern(pattern)
    mark = f"[masked {kind}]"
    if "before" not in compiled.groupindex:
        return lambda text: compiled.sub(mark, text)
    return lambda text: compiled.sub(lambda match: f"{match['before']}{mark}", text)


def _checked(kind: str, pattern: str, length: Callable[[str], int]) -> Rule:
    """Replaces as much of the beginning of each match as `length` says; 0 leaves it."""
    compiled = _pattern(pattern)
    mark = f"[masked {kind}]"

    def replaced(match: re.Match[str]) -> str:
        found = match[0]
        taken = length(found)
        return mark + found[taken:] if taken else found

    return lambda text: compiled.sub(replaced, text)


# -- credentials

#: Names that say that a secret follows; each may be the end of a longer one (`DB_PASSWORD`).
_NAMES = r"""(?i:
    password | passwd | passphrase | pwd | \bpass(?==) | secret | token | credentials?
    | api[_-]?key | access[_-]?key (?:[_-]?id)? | (?:secret|private|account)[_-]?key
    | authorization | 비밀번호 | 암호
)"""

#: What may stand before the secret in an Authorization header.
_SCHEME = r"(?i:bearer|basic|digest|token|negotiate|apikey)"

#: A name, what parts it from its value (`=`, `": "`, `\": \"`, `=>`, `>`), and a quotation mark.
#: Compilers say "unexpected token: …" of what is no secret.
_NAMED = _pattern(rf"""
    (?<! unexpected[ ] ) (?<! Unexpected[ ] ) {_NAMES}
    \\{{0,3}} ["']? [ \t]{{0,4}} (?: =>? | :=? | > ) [ \t]{{0,4}}
    (?: {_SCHEME} [ \t]{{1,4}} )?+
    (?: (?P<escape> \\{{0,3}} ) (?P<quote> ["'] ) (?: {_SCHEME} [ \t]{{1,4}} )?+ )?+
""")

#: The value, by its quotation mark and whether that is escaped.
_VALUES = {
    ("", False): _pattern(r"""(?: [^\s"'\\&,;)}\]|<>] | \\ (?! [nrt"'] ) )++"""),
    ('"', False): _pattern(r"""(?: \\. | [^"\\\n] )*+"""),
    ("'", False): _pattern(r"""(?: \\. | [^'\\\n] )*+"""),
    ('"', True): _pattern(r"""(?: (?! \\{1,3}" ) [^\n] )*+"""),
    ("'", True): _pattern(r"""(?: (?! \\{1,3}' ) [^\n] )*+"""),
}


def _assigned(text: str) -> str:
    """The value of `password=…`, `"token": "…"`, `Authorization: Bearer …`."""
    pieces: list[str] = []
    done = 0
    for match in _NAMED.finditer(text):
        start = match.end()
        if match.start() < done or text.startswith("[masked ", start):
            continue
        value = _VALUES[match["quote"] or "", bool(match["escape"])].match(text, start)
        if value is not None and value[0]:
            pieces += (text[done:start], "[masked credential]")
            done = value.end()
    return "".join(pieces) + text[done:]


_SCHEMED = _pattern(rf"(?P<before> \b {_SCHEME} [ \t]{{1,4}} ) (?P<value> [\w.~+/=-]++ )")

#: What a word has not: a digit, a capital after a small letter, base64's end.
_RANDOM = re.compile(r"[0-9]|[a-z][A-Z]|=\Z")


def _schemed(text: str) -> str:
    """`Bearer …` and `Basic …` outside of a header; "basic authentication" is left."""

    def replaced(match: re.Match[str]) -> str:
        value = match["value"]
        secret = len(value) >= 8 and _RANDOM.search(value)
        return f"{match['before']}[masked credential]" if secret else match[0]

    return _SCHEMED.sub(replaced, text)


_CREDENTIALS = (
    # A private key in PEM, its line breaks real or written as \n; also one cut short.
    _by(
        "credential",
        r"""
        -----BEGIN[ ] (?: [A-Z0-9]++[ ] ){0,3} PRIVATE[ ]KEY-----
        (?: [\s\\]++ [A-Za-z0-9+/=]{16,}+ )*+
        (?: [\s\\]*+ [A-Za-z0-9+/=]*+ [\s\\]*+ n? -----END[ ] [A-Z0-9 ]*+ ----- )?
    """,
    ),
    # user:password@ (or a token alone) before the host of a URL.
    _by("credential", r"""(?<= :// ) (?! \[masked[ ] ) [^\s/?#"'<>]+ (?= @ )"""),
    # JSON Web Tokens, signed (three parts) and encrypted (five).
    _by("credential", r"(?<! [\w-] ) eyJ [\w-]{5,}+ (?: \. [\w-]*+ ){1,4}+"),
    # Keys that their issuers made recognisable: AWS, OpenAI and alike, GitHub, GitLab, Slack,
    # Google, Stripe, npm, Hugging Face.
    _by(
        "credential",
        r"""
        (?<! [A-Za-z0-9_-] )
        (?: A(?:KIA|SIA|ROA|IDA|GPA|NPA) [A-Z0-9]{16} (?! [A-Za-z0-9] )
          | sk- [\w-]{16,}+
          | gh[pousr]_ [A-Za-z0-9]{20,}+ | github_pat_ \w{20,}+ | glpat- [\w-]{16,}+
          | xox[abeoprs]- [\w-]{10,}+
          | AIza [\w-]{30,}+
          | (?:sk|pk|rk)_(?:live|test)_ [A-Za-z0-9]{16,}+ | whsec_ [A-Za-z0-9+/=]{16,}+
          | npm_ [A-Za-z0-9]{30,}+ | hf_ [A-Za-z0-9]{30,}+
        )
    """,
    ),
    # A whole line of cookies.
    _by(
        "credential",
        r"""
        (?P<before> \b (?i:cookie) \\{0,3} ["']? [ \t]{0,4} [:=] [ \t]{0,4} \\{0,3} ["']? )
        (?= [\w.-]{1,64} = ) [^\r\n"'\\]++
    """,
    ),
    # --password hunter2
    _by(
        "credential",
        r"""
        (?P<before> -- (?i: (?: [a-z]++ - ){0,4}
            (?: pass(?:word|wd)? | token | secret | api-?key | access-?key | secret-?key )
        ) [ \t]{1,4} )
        (?! - | \[masked[ ] ) \S++
    """,
    ),
    _assigned,
    _schemed,
)

# -- personal data

_EMAIL = (
    # %40 is the @ of a URL's query. The local part's run begins only where none is under way.
    _by(
        "email",
        r"""
        (?<! [\w.+-] ) [\w.+-]++ (?: @ | %40 )
        (?: [A-Za-z0-9] [A-Za-z0-9-]{0,62}+ \. ){1,8} [A-Za-z]{2,24}+ (?! [\w-] )
    """,
    ),
)


def _ip_length(found: str) -> int:
    """How much of the beginning is an address; those of every machine tell nothing."""
    for candidate in (found, found.rstrip("."), found.rstrip(".:")):
        try:
            address = ipaddress.ip_address(candidate)
        except ValueError:
            continue
        return 0 if address.is_loopback or address.is_unspecified else len(candidate)
    return 0


def _ipv6_length(found: str) -> int:
    # Abc::Def is a class in many languages.
    return _ip_length(found) if len(found) <= 48 and re.search("[0-9]", found) else 0


_IP = (
    _checked(
        "ip",
        r"""
        (?<! [\w:.] ) (?= [0-9A-Fa-f]{0,4} : ) [0-9A-Fa-f:.]++ (?! \w )
    """,
        _ipv6_length,
    ),
    # Not 1.2.3.4 of "v1.2.3.4", "version 1.2.3.4", "name/1.2.3.4", "name-1.2.3.4.jar", and not a
    # part of something longer.
    _checked(
        "ip",
        r"""
        (?<! [\w.] ) (?<! [A-Za-z][-/] ) (?<! (?i:version)[ :=] ) (?<! (?i:version):[ ] )
        (?: [0-9]{1,3} \. ){3} [0-9]{1,3} (?! \.? \w | -[A-Za-z] )
    """,
        _ip_length,
    ),
    # Host names that clouds make of addresses.
    _by("ip", r"\b ip (?: -[0-9]{1,3} ){4} (?! [\w-] )"),
)


def _card_length(found: str) -> int:
    digits = [int(character) for character in found if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    luhn = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return len(found) if luhn and _ISSUED.fullmatch("".join(map(str, digits))) else 0


#: First digits and lengths as issuers use them; Luhn alone would take every tenth long number.
_ISSUED = _pattern(r"""
    4[0-9]{15} | 5[1-5][0-9]{14} | 2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}
    | 3[47][0-9]{13} | 3(?:0[0-5]|[689][0-9])[0-9]{11} | 35(?:2[89]|[3-8][0-9])[0-9]{12}
    | 6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12} | 62[0-9]{14} | 9[0-9]{15}
""")

_CARD = (
    _checked(
        "card",
        r"""
        (?<! [\w.-] )
        (?: [0-9]{14,16}
          | [0-9]{4} (?P<by4>[ -]) [0-9]{4} (?P=by4) [0-9]{4} (?P=by4) [0-9]{4}
          | [0-9]{4} (?P<by6>[ -]) [0-9]{6} (?P=by6) [0-9]{4,5}
        )
        (?! [\w-] | \.[0-9] )
    """,
        _card_length,
    ),
)


def _international_length(found: str) -> int:
    """As many groups as make 10 to 15 digits, as numbers with a country code have."""
    taken = digits = 0
    for position, character in enumerate(found):
        digits += character.isdigit()
        if digits > 15:
            break
        at_end = position + 1 == len(found) or not found[position + 1].isdigit()
        if character.isdigit() and digits >= 10 and at_end:
            taken = position + 1
    return taken


_PHONE = (
    _checked("phone", r"(?<! [\w+] ) \+ [1-9] (?: [ .-]? [0-9()] ){7,24}+", _international_length),
    # Korean: mobile (010-1234-5678, 01012345678, 82-10-…), Seoul, provinces, internet.
    _by(
        "phone",
        r"""
        (?<! [\w.+-] )
        (?: (?: 82[ .-]?(?:\(0\))? | 0 ) 1[016789] [ .-] [0-9]{3,4} [ .-] [0-9]{4}
          | (?: 0 | 82 ) 10 [0-9]{8}
          | \( 0 (?: 2 | [3-6][0-9] | 70 | 50[0-9] ) \) [ ]? [0-9]{3,4} - [0-9]{4}
          | 0 (?: 2 | [3-6][0-9] | 70 | 50[0-9] ) (?: - [0-9]{3,4} - | \) [0-9]{3,4} - ) [0-9]{4}
        )
        (?! [\w-] | \.[0-9] )
    """,
    ),
    # North American: (555) 234-5678, 555-234-5678, 1-555-234-5678.
    _by(
        "phone",
        r"""
        (?<! [\w.+-] )
        (?: 1[ -] )? (?: \( [2-9][0-9]{2} \) [ ]? | [2-9][0-9]{2} - ) [2-9][0-9]{2} - [0-9]{4}
        (?! [\w-] | \.[0-9] )
    """,
    ),
)

_RULES: dict[str, tuple[Rule, ...]] = {
    "credential": _CREDENTIALS,
    "email": _EMAIL,
    "ip": _IP,
    "card": _CARD,
    "phone": _PHONE,
}
