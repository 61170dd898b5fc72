"""Where traces are kept: see `traces`."""

from asynctrace.agent.store.counters import TROUBLE, Counters
from asynctrace.agent.store.traces import DEFAULT_MAX_BYTES, MIB, TraceNotFoundError, TraceStore

__all__ = ["DEFAULT_MAX_BYTES", "MIB", "TROUBLE", "Counters", "TraceNotFoundError", "TraceStore"]
