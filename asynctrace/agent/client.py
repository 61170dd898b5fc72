"""The read API from the other side: asks a running agent for its traces. Standard library only.

`http.client` knows nothing of proxies, which is right: a proxy cannot reach this machine's loopback.
"""

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from asynctrace.agent.spans import Trace

DEFAULT_URL = "http://localhost:8126"
_API = "/asynctrace/v1"
_TIMEOUT = 10.0  # seconds; a large trace is some megabytes of JSON
_PROBE_TIMEOUT = 0.5
_OK, _NOT_FOUND, _CONFLICT = 200, 404, 409


class AgentError(Exception):
    """Something the user can mend: one line says what, `hint` what to do.

    `usage` tells a wrong argument (exit code 2) from something that is not there (1).
    """

    def __init__(self, message: str, hint: str = "", *, usage: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.usage = usage


def find_url(option: str | None, environ: Mapping[str, str]) -> str:
    """Where the agent is: what was asked for, else `DD_TRACE_AGENT_URL`, else port 8126 of this machine.

    Raises:
        AgentError: it is no address of the form `http://host:port`.
    """
    url = option or environ.get("DD_TRACE_AGENT_URL") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme == "unix":
        raise AgentError(
            f"{url} is a unix socket, and traces are read by HTTP", "name a --url http://...", usage=True
        )
    try:
        valid = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise AgentError(f"{url} is not an address", "it looks like http://localhost:8126", usage=True)
    return url


def find_viewer(environ: Mapping[str, str]) -> str | None:
    """The address of an asynctrace agent that runs where a program would look for one, or None."""
    try:
        url = find_url(None, environ)
        status, answer = _get(url, "/info", _PROBE_TIMEOUT)
    except AgentError:
        return None
    return url.rstrip("/") if status == _OK and isinstance(answer, dict) and "asynctrace" in answer else None


def address_of(url: str, trace_id: str) -> str:
    """Where the page of the agent at `url` shows a trace."""
    return f"{url}/#/t/{trace_id}"


def fetch_trace(url: str, wanted: str) -> Trace:
    """The trace with an id, as `TraceStore.find` takes it, or the `last` one.

    Raises:
        AgentError: there is none, or nothing that has traces answers at `url`.
    """
    status, answer = _get(url, f"{_API}/traces/{quote(wanted, safe='')}", _TIMEOUT)
    if isinstance(answer, dict) and status in (_NOT_FOUND, _CONFLICT) and "candidates" in answer:
        candidates = answer["candidates"]
        hint = (
            "one of " + ", ".join(candidates)
            if candidates
            else f"`asynctrace show last --url {url}` shows the newest"
        )
        raise AgentError(str(answer.get("error")), "" if wanted == "last" else hint)
    try:
        if status == _OK:
            return Trace.from_json(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    if isinstance(answer, dict) and "error" in answer:
        raise AgentError(f"the agent at {url} says: {answer['error']}", "name it as localhost or 127.0.0.1")
    raise AgentError(
        f"what answers at {url} is not asynctrace's agent{_describe(url)}",
        "start one with `asynctrace view`, and name it with --url",
    )


def identify(url: str) -> str:
    """What answers at an address, in a few words: `"asynctrace 0.1.0"`, `"a Datadog agent 7.60.0"`."""
    try:
        status, answer = _get(url, "/info", _PROBE_TIMEOUT)
    except AgentError:
        return "something that does not speak HTTP"
    if status == _OK and isinstance(answer, dict) and "endpoints" in answer:
        version = str(answer.get("version", ""))[:40]
        return version if "asynctrace" in answer else f"a Datadog agent {version}".rstrip()
    return "an HTTP server that is no trace agent"


def _describe(url: str) -> str:
    return f" but {identify(url)}"


def _get(url: str, path: str, timeout: float) -> tuple[int, Any]:
    """Status and decoded JSON of an answer; None for JSON that is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
        status = response.status
    except (OSError, HTTPException, ValueError) as error:
        what = "nothing answers" if isinstance(error, ConnectionRefusedError) else f"no answer ({error})"
        raise AgentError(f"{what} at {url}", "start an agent with `asynctrace view`") from None
    finally:
        connection.close()
    try:
        return status, json.loads(body)
    except (ValueError, RecursionError):
        return status, None
