"""What of aiohttp's server is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrace.aiohttp.server import application, websocket
from asynctrace.aiohttp.server.connections import watch
from asynctrace.aiohttp.server.options import settings
from asynctrace.aiohttp.switch import patches, watching

if TYPE_CHECKING:
    from collections.abc import Iterable


def install(
    *,
    trust_headers: bool | None = None,
    untraced: Iterable[str] | None = None,
    websocket_messages: bool | None = None,
) -> None:
    """Trace every application that starts from now on."""
    from aiohttp import web

    if not patches:
        settings.read()
        watching.undo()
        patches.wrap(web.Application, "pre_freeze", application.frozen)
        patches.wrap(web.Application, "startup", application.started)
        patches.wrap(web.Application, "cleanup", application.cleaned_up)
        patches.replace(web.WebSocketResponse, "receive", websocket.receiving(web.WebSocketResponse.receive))
        watch(patches)
    settings.change(trust_headers, untraced, websocket_messages)
