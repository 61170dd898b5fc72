"""URLs as tags: without credentials and fragment, their query obfuscated as ddtrace would (trace_utils_base.py)."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from asynctrace._core.tracer import setting

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("asynctrace")

PATTERN = "DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP"
"""What is replaced in query strings; set to nothing, they are told as they are."""

REDACTED = "<redacted>"


def query_teller(switch: str) -> Callable[[str], str]:
    """What makes a query string fit for a tag; to be made once, at install. `switch`: the setting that may say no.

    Example:
        >>> tell = query_teller("DD_HTTP_SERVER_TAG_QUERY_STRING")
        >>> tell("page=2&token=abc")
        'page=2&<redacted>'
    """
    if os.environ.get(switch, "true").strip().lower() in {"false", "0"}:
        return lambda _: ""
    said = os.environ.get(PATTERN)
    if said == "":
        return str
    pattern, preserves = (_default(), True) if said is None else (_compiled(said), False)
    if pattern is None:
        return lambda _: ""
    obfuscate = pattern.sub
    replacement = (lambda match: (match[1] or "") + REDACTED) if preserves and pattern.groups else REDACTED

    def tell(query: str) -> str:
        return obfuscate(replacement, query) if query else query

    return tell


def _default() -> re.Pattern[str] | None:
    """The pattern that ddtrace has of its own."""
    pattern = setting("_obfuscation_query_string_pattern")
    said = getattr(pattern, "pattern", None)
    return _compiled(said.decode()) if isinstance(said, bytes) else None


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error as exc:  # ddtrace has warned of it
        log.debug("%s is no pattern: %s", PATTERN, exc)
        return None


def told(url: str, tell: Callable[[str], str]) -> str:
    """The URL as a tag; `tell` is what `query_teller` made.

    Example:
        >>> told("http://ann:secret@shop:8080/items?page=2#top", str)
        'http://shop:8080/items?page=2'
    """
    address, _, query = url.partition("#")[0].partition("?")
    if "@" in address:
        address = without_credentials(address)
    return f"{address}?{query}" if query and (query := tell(query)) else address


def without_credentials(address: str) -> str:
    """The address without user and password; an `@` in its path stays.

    Example:
        >>> without_credentials("http://ann@shop/@ann"), without_credentials("http://shop/@ann")
        ('http://shop/@ann', 'http://shop/@ann')
    """
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        return address
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
