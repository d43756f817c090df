"""Which names and addresses nobody but this machine reaches. Pure."""

from __future__ import annotations

import ipaddress

#: By which a program that listens on loopback is asked, without brackets.
NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(address: str) -> bool:
    """Args: address: an address, or `localhost`; of IPv6 without brackets."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
