"""Calls with client middlewares, which may send a request several times: each of those is a span in the call's.

Ours is the innermost of them: it sees what goes out, not what another middleware answers by itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asynctrace.aiohttp.client.call import Call, calling, made
from asynctrace.aiohttp.client.describe import ATTEMPT, RESEND, describe_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("asynctrace")


def with_attempts(session: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a request, with our middleware after the user's; without any of the user's, as they are.

    aiohttp has middlewares from 3.12 on.
    """
    theirs = kwargs.get("middlewares")
    if theirs is None:
        theirs = getattr(session, "_middlewares", ())
    return {**kwargs, "middlewares": (*theirs, attempt)} if theirs else kwargs


async def attempt(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    """One request, sent."""
    call = calling.get()
    if call is None or call.over:
        return await handler(request)
    try:
        this = Call(describe_request(ATTEMPT, request.method, request.url))
        if call.sent:
            this.span.set_tag(RESEND, call.sent)
        call.sent += 1
    except Exception:
        log.debug("an attempt is not shown", exc_info=True)
        return await handler(request)
    return await made(this, handler(request))
