"""Who asks: the client's address, by the headers of proxies, as ddtrace finds it (trace_utils.py).

The first public address that a header of a proxy's names; where there is none, the peer's, if that is public or the
headers name no other.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS = (
    "x-forwarded-for",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "forwarded",
    "forwarded-for",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
)
"""In this order: the first that is there decides."""

_ADDRESS = re.compile(
    r"""\s* (?: (?: [^,]*; \s* )? for= "? )?
        (?: \[ (?P<bracketed> [0-9a-f:.]+ ) \] (?: :\d+ )?
          | (?P<four> \d+\.\d+\.\d+\.\d+ ) (?: :\d+ )?
          | (?P<six> [0-9a-f:]+ ) )
        (?: "? \s* (?: ; .* )? )? $""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""One hop: an address, maybe with a port, alone or as `Forwarded` has it."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_LENGTH = 2048
"""So much of a header is looked at, characters."""


def client_ip(headers: Mapping[str, str], peer: str | None, header: str | None = None) -> str | None:
    """The client's address; `header` is the only one to look at, if it is given.

    Example:
        >>> client_ip({"x-forwarded-for": "10.0.0.7, 8.8.8.8"}, "10.0.0.1")
        '8.8.8.8'
        >>> client_ip({}, "10.0.0.1")
        '10.0.0.1'
    """
    names = HEADERS if header is None else (header,)
    said = next((value for name in names if (value := headers.get(name))), "")
    private: str | None = None
    for hop in said[:MAX_LENGTH].split(","):
        if (address := _address_in(hop)) is None:
            continue
        if address.is_global:
            return str(address)
        private = private or str(address)
    direct = _parsed(peer)
    return peer if private is None or (direct is not None and direct.is_global) else private


def _address_in(hop: str) -> _Address | None:
    found = _ADDRESS.match(hop)
    return None if found is None else _parsed(found["bracketed"] or found["four"] or found["six"])


def _parsed(address: str | None) -> _Address | None:
    try:
        return ipaddress.ip_address(address or "")
    except ValueError:
        return None
