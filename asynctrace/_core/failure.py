"""What is recorded of an exception: type, message, stack, the leaves of a group. Nothing of it is kept."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from asynctrace._core.cancel import explain
from asynctrace._core.outcome import leaf_types, type_name
from asynctrace._core.values import text

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

log = logging.getLogger("asynctrace")

STACK_FRAMES = 30
"""A stack is cut to this many frames, the innermost; ddtrace's own default."""

STACK_LENGTH = 16_000
"""And, with those of the exceptions it came from and of a group's members, to so many characters, the last."""

LEAVES_TAG = "async.error.leaves"
"""The types of the exceptions in an exception group."""


def record_error(dd: DDSpan, exc: BaseException) -> None:
    """Type, message and stack, whatever kind of exception it is. Never raises, keeps nothing of it."""
    try:
        dd.set_exc_info(type(exc), exc, exc.__traceback__)  # ddtrace's products listen to this
    except Exception:
        log.debug("ddtrace could not record %s", type(exc), exc_info=True)
    dd.error = 1
    try:
        # what ddtrace leaves out: exceptions that were never raised, are false, or have text that is not UTF-8
        dd.set_tag("error.message", text(exc))
        if dd.get_tag("error.type") is None:
            dd.set_tag("error.type", type_name(exc))
        stack = dd.get_tag("error.stack")
        if stack is None:
            stack = "".join(traceback.format_tb(exc.__traceback__, -STACK_FRAMES))
        if stack:
            dd.set_tag("error.stack", text(stack)[-STACK_LENGTH:])
        if leaves := leaf_types(exc):
            dd.set_tag(LEAVES_TAG, text(leaves))
        explain(exc)
    except Exception:
        log.debug("%s could not be recorded", type(exc), exc_info=True)
