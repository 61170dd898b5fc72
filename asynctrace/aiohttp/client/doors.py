"""What of aiohttp's client is replaced."""

from __future__ import annotations

import aiohttp

from asynctrace.aiohttp.client import connections, session
from asynctrace.aiohttp.switch import patches


def install() -> None:
    """Trace every session, those that are open, too."""
    if (request := vars(aiohttp.ClientSession).get(session.REQUEST)) is not None:
        connections.open_doors()
        patches.replace(aiohttp.ClientSession, session.REQUEST, session.traced(request))


def uninstall() -> None:
    """The session's door goes with `patches`; sessions that were traced by hand stay so."""
    connections.close_doors()
