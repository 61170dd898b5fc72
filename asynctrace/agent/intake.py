"""Bodies that wait for decoding, and the one thread that works them off.

A tracer waits three seconds for its answer and sends again without one, so the server answers first and hands
the body to this queue. It is bounded in bytes, not in requests: a thousand small bodies are no burden. When
it is full, the oldest are dropped and counted.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Condition, Thread

from asynctrace.agent import otlp, protocol
from asynctrace.agent.protocol import BadPayloadError, Chunk, Decoded
from asynctrace.agent.store import MIB, TraceStore

DEFAULT_MAX_PENDING = 64 * MIB
OTLP = "otlp"
_BATCH = 1_000  # spans that are written together
log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Payload:
    """A body as it arrived: the version of the protocol from its path, or `otlp`; and whether it says it is JSON."""

    version: str
    body: bytes
    is_json: bool = False

    def decoded(self) -> Iterator[Decoded]:
        """Its spans, a part at a time; see `protocol.decode`."""
        if self.version == OTLP:
            return otlp.decode(self.body, is_json=self.is_json)
        return protocol.decode(self.version, self.body, is_json=self.is_json)


class Intake:
    """Decodes payloads into a store, in a thread of its own and in the order they came.

    Args:
        store: where the spans go; its counters tell what happened.
        max_pending: the bound on the bodies that wait, in bytes.
    """

    def __init__(self, store: TraceStore, max_pending: int = DEFAULT_MAX_PENDING) -> None:
        self._store = store
        self._max_pending = max_pending
        self._pending: deque[Payload] = deque()
        self._pending_bytes = 0
        self._busy = False
        self._closing = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = Thread(target=self._work, name="asynctrace-agent-decoder", daemon=True)
        self._thread.start()

    def put(self, payload: Payload) -> None:
        """Queues a payload; never blocks for long, never raises."""
        with self._changed:
            self._pending.append(payload)
            self._pending_bytes += len(payload.body)
            dropped = 0
            while self._pending_bytes > self._max_pending:
                self._pending_bytes -= len(self._pending.popleft().body)
                dropped += 1
            self._changed.notify_all()
        self._store.counters.add(payloads=1, dropped_payloads=dropped)

    def wait_idle(self, timeout: float) -> bool:
        """Blocks until everything queued is in the store; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._busy, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Works off what is queued and ends the thread; what is left after `timeout` seconds is given up."""
        deadline = time.monotonic() + timeout
        self.wait_idle(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(1.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if self._closing:
                    return
                payload = self._pending.popleft()
                self._pending_bytes -= len(payload.body)
                self._busy = True
            try:
                self._decode(payload)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _decode(self, payload: Payload) -> None:
        counters = self._store.counters
        try:
            for chunks, bad_spans in _batches(payload.decoded()):
                if self._closing:
                    return
                counters.add(bad_spans=bad_spans)
                self._store.add(chunks)
        except BadPayloadError as error:
            counters.add(bad_payloads=1)
            log.debug("a %s body of %d bytes: %s", payload.version, len(payload.body), error)
        except Exception:
            # Whatever a body made happen, the next one must still be decoded.
            counters.add(bad_payloads=1)
            log.exception("a %s body of %d bytes", payload.version, len(payload.body))


def _batches(parts: Iterator[Decoded]) -> Iterator[tuple[list[Chunk], int]]:
    """Parts of a body together, as long as they are small: a transaction each would cost more than all else.

    What was read before a body went wrong is kept.
    """
    chunks: list[Chunk] = []
    bad = size = 0
    try:
        for part in parts:
            chunks += part.chunks
            bad += part.bad_spans
            size += 1 + sum(len(chunk.spans) for chunk in part.chunks)
            if size >= _BATCH:
                yield chunks, bad
                chunks, bad, size = [], 0, 0
    except BadPayloadError:
        yield chunks, bad
        raise
    yield chunks, bad
