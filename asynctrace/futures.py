"""concurrent.futures: work given to a thread pool stays in the trace of the one who gave it.

On from the first use of asynctrace, as part of its core (`_core/threads.py`); `uninstall()` takes it off, this puts it
on again, and `DD_TRACE_FUTURES_ENABLED=false` keeps it off.

    from asynctrace import span

    with span("request"):
        await loop.run_in_executor(None, render)     # spans in render() are children of request
"""

from __future__ import annotations

from asynctrace._core.threads import install, uninstall

__all__ = ["SUPPORTED", "install", "uninstall"]

SUPPORTED = ("0", "999")
"""Part of Python."""
