"""Headers as tags, those that `DD_TRACE_HEADER_TAGS` names; no others are recorded."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrace._core.tracer import setting
from asynctrace._core.values import text

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTING = "DD_TRACE_HEADER_TAGS"
"""Headers, each with or without a tag: `X-Tenant:tenant,Content-Type`. Without any comma, blanks are between."""

Wanted = tuple[tuple[str, str], ...]
"""Headers and their tags."""

_UNUSUAL = re.compile(r"[^a-z0-9_\-:/]")


class HeaderTags(NamedTuple):
    """The headers that become tags."""

    request: Wanted
    response: Wanted


def header_tags() -> HeaderTags:
    """What the environment asks for, and what ddtrace has been told elsewhere; to be read once, at install."""
    names: dict[str, str] = {**setting("_http._header_tags", {}), **_named(os.environ.get(SETTING, ""))}
    return HeaderTags(
        tuple((name, tag or tag_of("request", name)) for name, tag in names.items()),
        tuple((name, tag or tag_of("response", name)) for name, tag in names.items()),
    )


def _named(said: str) -> dict[str, str]:
    pairs = (one.partition(":") for one in said.split("," if "," in said else None))
    return {name.strip().lower(): tag.strip() for name, _, tag in pairs if name.strip()}


def tag_of(side: str, header: str) -> str:
    """The tag of a header that was given none, as ddtrace names it (trace_utils_base.py, _normalize_tag_name).

    Example:
        >>> tag_of("request", "X-Forwarded.For")
        'http.request.headers.x-forwarded_for'
    """
    return f"http.{side}.headers.{_UNUSUAL.sub('_', header.strip().lower())}"


def tags_from(headers: Mapping[str, str], wanted: Wanted) -> dict[str, Any]:
    """The tags of these headers; of a repeated one the first. `headers` ignores case, as aiohttp's do.

    Example:
        >>> tags_from({"x-tenant": "a"}, (("x-tenant", "tenant"), ("x-other", "other")))
        {'tenant': 'a'}
    """
    get = headers.get
    return {tag: text(value) for name, tag in wanted if (value := get(name)) is not None}
