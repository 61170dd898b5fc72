"""What of aiohttp's client is replaced."""

from __future__ import annotations

from asynctrace.aiohttp.client import session
from asynctrace.aiohttp.switch import patches


def install() -> None:
    """Trace every session made from now on."""
    import aiohttp

    patches.wrap(aiohttp.ClientSession, "__init__", session.installed)
