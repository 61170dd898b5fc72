"""Sessions whose calls are traced: by hand, and all of them."""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict

from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.client import connections
from asynctrace.aiohttp.client.attempts import with_attempts
from asynctrace.aiohttp.client.call import Call, made
from asynctrace.aiohttp.client.describe import describe_call
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Request = Callable[..., Awaitable[Any]]

log = logging.getLogger("asynctrace")

REQUEST = "_request"
"""The method of a session behind all others. Where it is not, calls go untraced."""

_aiohttp = vars(aiohttp)


def traced_session(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """The session, with every call a span and its context in the request's headers. In place; twice is once.

    The headers that are given to it, and its own, stay as they are. Raises `UsageError` for anything but a
    `ClientSession`.

    Example:
        >>> async def price(url):
        ...     async with traced_session(aiohttp.ClientSession()) as session:
        ...         async with session.get(url) as response:
        ...             return await response.json()
    """
    if not isinstance(session, aiohttp.ClientSession):
        raise UsageError(
            f"traced_session() needs an aiohttp.ClientSession, got {type(session).__name__}",
            hint="traced_session(aiohttp.ClientSession())",
        )
    if tracer.enabled and not _is_by_hand(session) and hasattr(session, REQUEST):
        connections.open_doors_for(session)
        vars(session)[REQUEST] = _ByHand(session)
    return session


class _ByHand:
    """`_request` of one session, which keeps it and is not kept by it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = weakref.ref(session)

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        session = self._session()
        return _by_hand(session, args, kwargs)


async def _by_hand(session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return await _called(session, getattr(type(session), REQUEST), args, kwargs)


def _is_by_hand(session: Any) -> bool:
    return REQUEST in vars(session)


def traced(request: Request) -> Request:
    """`ClientSession._request`, traced while the patches are on."""

    @functools.wraps(request)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.are_on or REQUEST in self.__dict__:
            return await request(self, *args, **kwargs)
        return await _called(self, request, args, kwargs)

    return method


def _called(session: Any, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
    """A call that begins here; to be awaited at once."""
    if not tracer.enabled or _aiohttp.get("_datadog_patch"):  # one span a call, not two
        return request(session, *args, **kwargs)
    try:
        method, url = args
        call = Call(describe_call(session, method, url, kwargs.get("params")))
        kwargs = with_attempts(session, kwargs)
        if not connections.sees(type(session.connector)):
            kwargs["headers"] = headers = CIMultiDict(kwargs.get("headers") or ())
            call.write(headers)
    except Exception:
        log.debug("a call goes untraced", exc_info=True)
        return request(session, *args, **kwargs)
    return made(call, request(session, *args, **kwargs))
