"""Where requests come in: trace headers, trusted or not, client addresses, paths without spans."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asynctrace import span
from asynctrace.aiohttp import install, trace_application
from asynctrace.aiohttp.server.client_ip import client_ip
from asynctrace.aiohttp.server.options import matcher, settings
from asynctrace.aiohttp.statuses import statuses
from tests.web.helpers import app_with, ask, hello, served

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

TRACE, PARENT = 0x65A1B2C3000000000000000000000007, 8

DATADOG = {
    "x-datadog-trace-id": "7",
    "x-datadog-parent-id": "8",
    "x-datadog-sampling-priority": "1",
    "x-datadog-tags": "_dd.p.dm=-4,_dd.p.tid=65a1b2c300000000",
}
W3C = {
    "Traceparent": f"00-{TRACE:032x}-{PARENT:016x}-01",
    "TraceState": "dd=s:1;t.dm:-4,congo=t61",
}


async def echo(_: web.Request) -> web.Response:
    from asynctrace import SpanContext

    return web.json_response(SpanContext.current().inject({}))


@pytest.mark.parametrize("headers", [DATADOG, W3C, {**DATADOG, **W3C}], ids=["datadog", "w3c", "both"])
async def test_a_request_joins_the_trace_in_its_headers(
    traced: Any, traces: Recorder, headers: dict[str, str]
) -> None:
    """All 128 bits of it, in Datadog's words and in W3C's, and other vendors' state goes on."""
    server = await traced(app_with(echo))
    _, body = await ask(server, headers=headers)
    [request] = await served(traces)
    assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
    assert request.tags["_sampling_priority_v1"] == 1
    if "Traceparent" in headers and len(headers) == 2:
        assert b"congo=t61" in body


@pytest.mark.parametrize("priority", [-1, 0, 2])
async def test_the_senders_decision_is_kept(traced: Any, traces: Recorder, priority: int) -> None:
    """Sampled out there is sampled out here, and kept is kept."""
    server = await traced(app_with(echo))
    _, body = await ask(server, headers={**DATADOG, "x-datadog-sampling-priority": str(priority)})
    [request] = await served(traces)
    assert request.tags["_sampling_priority_v1"] == priority
    assert f'"x-datadog-sampling-priority": "{priority}"'.encode() in body


async def test_baggage_comes_along(traced: Any, traces: Recorder) -> None:
    """What travels with the trace is passed on."""
    server = await traced(app_with(echo))
    _, body = await ask(server, headers={**W3C, "baggage": "user=ann"})
    await served(traces)
    assert b"user=ann" in body


async def test_headers_that_are_not_trusted(serve: Any, traces: Recorder) -> None:
    """At a public edge a request begins a trace of its own, with a link to the one in its headers."""
    server = await serve(trace_application(app_with(hello), trust_headers=False))
    await ask(server, headers=DATADOG)
    await ask(server)
    linked, plain = await served(traces, 2)
    assert (linked.parent_id, plain.parent_id, plain.links) == (None, None, ())
    assert linked.trace_id != TRACE
    assert [(link.trace_id, link.span_id) for link in linked.links] == [(TRACE, PARENT)]
    assert traces.spans[1].parent_id == linked.span_id


@pytest.mark.parametrize("way", ["environment", "install", "by hand"])
async def test_paths_without_spans(
    monkeypatch: pytest.MonkeyPatch, serve: Any, traces: Recorder, way: str
) -> None:
    """Exact paths and patterns; what their handlers do belongs to nobody, least of all to who started the server."""
    app = app_with(hello, "/{tail:.*}")
    if way == "environment":
        monkeypatch.setenv("ASYNCTRACE_AIOHTTP_UNTRACED", "/health, /internal/*")
        install()
    elif way == "install":
        install(untraced=["/health", "/internal/*"])
    else:
        trace_application(app, untraced=["/health", "/internal/*"])
    with span("startup"):
        server = await serve(app)
    for path in ("/health?x=1", "/internal/a/b", "/healthy"):
        assert (await ask(server, path))[0] == 200
    [request] = await served(traces)
    assert request.tags["http.url"].endswith("/healthy")
    assert [one.parent_id for one in traces.spans if one.name == "work"] == [None, None, request.span_id]


async def test_called_again_install_changes_what_it_is_given(serve: Any, traces: Recorder) -> None:
    """And nothing else, for the applications that start from then on."""
    install(untraced=["/health"])
    install(trust_headers=False)
    server = await serve(app_with(hello, "/{tail:.*}"))
    await ask(server, "/health")
    await ask(server, "/other", headers=DATADOG)
    [request] = await served(traces)
    assert len(request.links) == 1


async def test_headers_as_tags(monkeypatch: pytest.MonkeyPatch, traced: Any, traces: Recorder) -> None:
    """Of request and response, those that DD_TRACE_HEADER_TAGS names."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(headers={"X-Shard": "7", "X-Other": "b"})

    monkeypatch.setenv("DD_TRACE_HEADER_TAGS", "X-Tenant:tenant,X-Shard")
    server = await traced(app_with(handler))
    await ask(server, headers={"X-Tenant": "a", "Cookie": "secret"})
    [request] = await served(traces)
    assert (request.tags["tenant"], request.tags["http.response.headers.x-shard"]) == ("a", "7")
    assert "secret" not in str(request.tags)


async def test_the_clients_address(monkeypatch: pytest.MonkeyPatch, traced: Any, traces: Recorder) -> None:
    """Where DD_TRACE_CLIENT_IP_ENABLED asks for it: by the headers of proxies, and the peer beside."""
    monkeypatch.setenv("DD_TRACE_CLIENT_IP_ENABLED", "true")
    server = await traced(app_with(hello))
    await ask(server, headers={"X-Forwarded-For": "10.0.0.7, 8.8.8.8"})
    await ask(server)
    first, second = await served(traces, 2)
    assert (first.tags["http.client_ip"], first.tags["network.client.ip"]) == ("8.8.8.8", "127.0.0.1")
    assert second.tags["http.client_ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "peer", "header", "expected"),
    [
        ({"x-forwarded-for": "10.0.0.7, 8.8.8.8, 9.9.9.9"}, "10.0.0.1", None, "8.8.8.8"),
        ({"x-forwarded-for": "10.0.0.7"}, "10.0.0.1", None, "10.0.0.7"),
        ({"x-forwarded-for": "10.0.0.7"}, "8.8.4.4", None, "8.8.4.4"),
        ({"x-forwarded-for": "rubbish,,8.8.8.8:99"}, None, None, "8.8.8.8"),
        ({"forwarded": 'proto=http;for="[2001:4860::1]:4711";by=x'}, None, None, "2001:4860::1"),
        ({"forwarded": "for=8.8.8.8"}, "10.0.0.1", None, "8.8.8.8"),
        ({"x-real-ip": "2001:4860::1"}, None, None, "2001:4860::1"),
        ({"x-forwarded-for": "8.8.8.8", "x-mine": "9.9.9.9"}, None, "x-mine", "9.9.9.9"),
        ({"x-forwarded-for": "8.8.8.8"}, "10.0.0.1", "x-mine", "10.0.0.1"),
        ({"x-forwarded-for": "999.1.1.1"}, "10.0.0.1", None, "10.0.0.1"),
        ({"x-forwarded-for": "," * 100_000}, None, None, None),
        ({}, None, None, None),
    ],
)
def test_who_the_client_is(
    headers: dict[str, str], peer: str | None, header: str | None, expected: str | None
) -> None:
    """The first public address the proxies name, else the peer's if public, else a private one."""
    assert client_ip(headers, peer, header) == expected


def test_patterns_and_statuses() -> None:
    """One pattern as text; nothing from nothing; statuses out of range are left out."""
    match = matcher("/a*")
    assert match is not None
    assert match("/ab")
    assert not match("/b")
    assert matcher([" ", ""]) is None
    assert statuses("0-99999") == frozenset(range(100, 1000))


def test_a_setting_that_is_none(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A list of statuses that is none is told in one warning, and the default holds."""
    monkeypatch.setenv("DD_HTTP_SERVER_ERROR_STATUSES", "many")
    with caplog.at_level(logging.WARNING, "asynctrace"):
        settings.read()
    assert settings.current().errors == statuses("500-599")
    assert "'many'" in caplog.text
