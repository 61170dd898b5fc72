"""The list of traces, filtered, once or live: a page that watches hears of what changed, a few times a second.

event: list      the newest traces that pass the filter, and the counters
event: changed   traces that are new or have grown, ids of those that pass no more, and the counters
"""

import asyncio
import json
from itertools import islice
from typing import Any

from aiohttp import web

from asynctrace.agent.glance import Glances
from asynctrace.agent.query import Query
from asynctrace.agent.spans import Summary
from asynctrace.agent.store import TraceNotFoundError, TraceStore
from asynctrace.agent.waiting import wait_any

LISTED = 300  # lines that a page begins with
_PAUSE = 0.15  # seconds between two events
_HEARTBEAT = 2.0  # seconds after which counters are told though no trace changed


def matching(store: TraceStore, query: Query, limit: int) -> list[Summary]:
    """The newest traces that pass a filter; reads spans only of those that may."""
    passing = (summary for summary in store.each_summary() if passes(store, query, summary))
    return list(islice(passing, limit))


def passes(store: TraceStore, query: Query, summary: Summary) -> bool:
    """Whether a trace passes a filter."""
    if not query.may_match(summary):
        return False
    if not query.needs_spans:
        return True
    try:
        return query.matches(store.find(summary.id).spans)
    except TraceNotFoundError:  # evicted meanwhile
        return False


def counted(store: TraceStore) -> dict[str, Any]:
    """The counters, and how much is held."""
    held = {"traces": len(store), "bytes": store.stored_bytes, "max_bytes": store.max_bytes}
    return {**store.counters.snapshot(), "held": held}


async def stream(
    request: web.Request, store: TraceStore, glances: Glances, query: Query, closing: asyncio.Event
) -> web.StreamResponse:
    """Answers with events until the page leaves or the agent closes."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    leave = store.subscribe(lambda: loop.call_soon_threadsafe(changed.set))
    try:
        version = store.version
        listed = await asyncio.to_thread(lambda: glances.lines(matching(store, query, LISTED)))
        await _tell(response, store, "list", {"traces": listed})
        while not closing.is_set():
            await wait_any(changed, closing, timeout=_HEARTBEAT)
            changed.clear()
            news, version = await asyncio.to_thread(_news, store, glances, query, version)
            await _tell(response, store, "changed", news)
            await asyncio.sleep(_PAUSE)
    except (ConnectionError, RuntimeError):  # the page has left
        pass
    finally:
        leave()
    return response


def _news(store: TraceStore, glances: Glances, query: Query, version: int) -> tuple[dict[str, Any], int]:
    newest, version = store.summaries_since(version, LISTED)
    good = [summary for summary in newest if passes(store, query, summary)]
    kept = {summary.trace_id for summary in good}
    gone = [summary.id for summary in newest if summary.trace_id not in kept]
    return {"traces": glances.lines(good), "gone": gone}, version


async def _tell(response: web.StreamResponse, store: TraceStore, event: str, data: dict[str, Any]) -> None:
    text = json.dumps({**data, "counters": counted(store)})
    await response.write(f"event: {event}\ndata: {text}\n\n".encode())
