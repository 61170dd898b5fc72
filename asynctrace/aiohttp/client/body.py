"""How the body of an answer ended, seen as its connection is given back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import aiohttp

from asynctrace._core.outcome import CANCELLED, CLOSED, TIMEOUT, outcome_of

if TYPE_CHECKING:
    from asynctrace._core.span import Span


def tell_outcome(span: Span, content: Any) -> None:
    """Say on the span what became of the body: read, failed, cut short, or left unread (`closed`, no error)."""
    if content.is_eof():
        return
    failure = content.exception()
    if failure is not None and not _was_released(failure):
        span.set_error(failure)
        return
    handled = sys.exc_info()[1]  # what the reader, or the block around it, is leaving with
    if handled is not None and outcome_of(handled) in {CANCELLED, TIMEOUT}:
        span.set_error(handled)
    else:
        span.set_outcome(CLOSED)


def _was_released(failure: BaseException) -> bool:
    """Whether this is what aiohttp leaves in a body that its caller is through with."""
    return type(failure) is aiohttp.ClientConnectionError and failure.args == ("Connection closed",)
