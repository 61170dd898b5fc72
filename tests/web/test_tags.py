"""URLs and headers as tags, for what is served and what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ddtrace import config
from ddtrace.internal.utils.http import redact_url
from hypothesis import given, strategies as st
from multidict import CIMultiDict

from asynctrace.aiohttp.header_tags import SETTING, header_tags, tags_from
from asynctrace.aiohttp.url import PATTERN, query_teller, told

if TYPE_CHECKING:
    from collections.abc import Iterator

SWITCH = "DD_HTTP_SERVER_TAG_QUERY_STRING"

words = st.sampled_from(
    [
        "page",
        "token",
        "=",
        "&",
        "%20",
        '"password":"a"',
        "%22",
        "secret",
        "key",
        "ssh-rsa",
        "é",
        "a" * 15,
        " ",
    ]
)


@given(st.lists(words, min_size=1, max_size=12).map("".join))
def test_queries_are_obfuscated_as_ddtrace_does(query: str) -> None:
    """With nothing set, a query reads as ddtrace itself would write it."""
    url = f"http://shop/items?{query}"
    pattern = config._obfuscation_query_string_pattern
    assert pattern is not None
    theirs = redact_url(url, pattern, query, preserve_delimiter=True)
    assert told(url, query_teller(SWITCH)) == (theirs.decode() if isinstance(theirs, bytes) else theirs)


@pytest.mark.parametrize(
    ("setting", "value", "query"),
    [
        (SWITCH, "false", ""),
        (SWITCH, "0", ""),
        (PATTERN, "", "?page=2&token=abc"),
        (PATTERN, "page=.", "?<redacted>&token=abc"),
        (PATTERN, "((", ""),
    ],
)
def test_queries_are_told_as_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, query: str
) -> None:
    """Not at all, as they are, or with a pattern of the user's own; a pattern that is none hides everything."""
    monkeypatch.setenv(setting, value)
    assert told("http://shop/items?page=2&token=abc", query_teller(SWITCH)) == f"http://shop/items{query}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://ann:secret@shop:8080/a?b=1#c", "http://shop:8080/a?b=1"),
        ("http://ann:p@ss@shop/@a?b=@c", "http://shop/@a?b=@c"),
        ("http://shop/@a", "http://shop/@a"),
        ("/relative/@a?", "/relative/@a"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_urls_are_told_without_credentials(url: str, expected: str) -> None:
    """Neither user nor password, nor the fragment; everything else stays."""
    assert told(url, str) == expected


@pytest.fixture
def by_program() -> Iterator[None]:
    """ddtrace was told of a header, by a setting that is read elsewhere (a file of the fleet's, remotely)."""
    config._http.trace_headers(["X-Region"])
    yield
    config._http._reset()  # type: ignore[no-untyped-call]


def test_headers_are_tags_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, by_program: None) -> None:
    """By DD_TRACE_HEADER_TAGS or as ddtrace has been told, in any case, with a tag's name or ddtrace's own."""
    monkeypatch.setenv(SETTING, "X-Tenant:tenant, content-TYPE,X-Odd.Name")
    headers = CIMultiDict(
        [("x-tenant", "a"), ("X-Tenant", "b"), ("Content-Type", "text"), ("x-odd.name", "é")]
    )
    headers["X-REGION"] = "eu"
    headers["Cookie"] = "secret"
    wanted = header_tags()
    assert tags_from(headers, wanted.request) == {
        "tenant": "a",
        "http.request.headers.content-type": "text",
        "http.request.headers.x-odd_name": "é",
        "http.request.headers.x-region": "eu",
    }
    assert tags_from(headers, wanted.response)["http.response.headers.content-type"] == "text"


def test_without_a_setting_no_header_is_a_tag() -> None:
    """Header values are never recorded unless asked for."""
    assert header_tags() == ((), ())
