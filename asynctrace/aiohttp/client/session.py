"""Sessions whose calls are traced: by hand, and all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.client.call import trace_config
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp


def _has_ours(configs: Any) -> bool:
    return any(getattr(config, "_asynctrace", False) for config in configs)


def traced_session(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """The session, with every call a span and its context in the request's headers. In place; twice is once.

    Example:
        >>> async def price(url):
        ...     async with traced_session(aiohttp.ClientSession()) as session:
        ...         async with session.get(url) as response:
        ...             return await response.json()
    """
    configs = getattr(session, "trace_configs", None)
    if configs is None:
        raise UsageError(
            f"traced_session() needs an aiohttp.ClientSession, got {type(session).__name__}",
            hint="traced_session(aiohttp.ClientSession())",
        )
    if tracer.enabled and not _has_ours(configs):
        ours = trace_config(by_hand=True)
        ours.freeze()
        session._trace_configs = [*configs, ours]  # its list may be the caller's own, shared between sessions
    return session


def installed(init: Callable[..., None], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Every session is made with ours."""
    if patches and tracer.enabled:
        configs = kwargs.get("trace_configs") or []
        if not _has_ours(configs):
            kwargs = {**kwargs, "trace_configs": [*configs, trace_config(by_hand=False)]}
    init(*args, **kwargs)
