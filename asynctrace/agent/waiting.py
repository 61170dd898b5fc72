"""Waiting for events of the loop, with a bound.

`asyncio.wait_for` loses a cancellation that comes in the moment of its time-out, before Python 3.12
(https://github.com/python/cpython/issues/86296): what is cancelled then goes on for ever.
"""

import asyncio


async def wait_any(*events: asyncio.Event, timeout: float | None) -> bool:
    """Whether any of the events is set within `timeout` seconds; None waits without a bound."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for waiter in waiters:
            waiter.cancel()
