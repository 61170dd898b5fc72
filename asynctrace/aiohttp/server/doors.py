"""What of aiohttp's server is replaced."""

from __future__ import annotations

from asynctrace.aiohttp.server import middleware
from asynctrace.aiohttp.switch import patches


def install() -> None:
    """Trace every application that starts from now on."""
    from aiohttp import web

    patches.wrap(web.Application, "pre_freeze", middleware.installed)
