"""The test kit: what was traced, as plain data, and asserted in lines that read like the tree.

    async def test_checkout(traces):  # the fixture of the pytest plugin; elsewhere: with Recorder() as traces
        await checkout()
        await traces.wait_for("shop.mail")
        traces.assert_tree('''
            shop.checkout
              shop.price
              shop.pay (timeout)
            shop.mail
        ''')

Needs no agent, and never flushes ddtrace. Spans go to an agent, too, where the environment names one.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from asynctrace._core.early import watch
from asynctrace._core.errors import UsageError
from asynctrace._core.handover import handover
from asynctrace._core.listening import listeners
from asynctrace._testkit import trees
from asynctrace._testkit.checks import crosstalk
from asynctrace._testkit.recorded import RecordedLink, RecordedSpan, as_ddtrace, by_name, is_open, recorded
from asynctrace._testkit.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType

    from ddtrace.trace import Span as DDSpan
    from typing_extensions import Self

    from asynctrace._core.span import Span

__all__ = ["RecordedLink", "RecordedSpan", "Recorder"]


class Recorder:
    """Records every span of the process while it runs: ours, ddtrace's integrations', the user's own.

    `spans` holds what goes to ddtrace's writer, after all filters, and nothing else; `open` what was started and has
    not ended. A `with` block, or `start()` and `stop()`. With `send=False` nothing is sent meanwhile; left out, it is
    sent where the environment names an agent (`DD_TRACE_AGENT_URL` or `DD_AGENT_HOST`).

    Example:
        >>> from asynctrace import span
        >>> from asynctrace.testing import Recorder
        >>> with Recorder() as traces:
        ...     with span("outer"), span("inner"):
        ...         pass
        >>> print(traces.tree())
        outer
          inner
    """

    def __init__(self, *, send: bool | None = None) -> None:
        self._send = _has_agent() if send is None else send
        self._lock = threading.RLock()  # the garbage collector may end spans while we hold it
        self._opened: dict[int, Span | DDSpan] = {}
        self._handed_over: list[DDSpan] = []
        self._waiting = Waiting()

    def start(self) -> Self:
        """Begin to record. Recording twice at once is the same as once."""
        if self not in listeners:
            watch.settle()
            listeners.append(self)
        return self

    def stop(self) -> None:
        """Stop recording; what was recorded stays."""
        if self in listeners:
            handover.finish()
            listeners.remove(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    # -- as a listener of _core.delivery

    def opened(self, span: Span | DDSpan) -> None:
        """A span was started."""
        with self._lock:
            self._opened[span.span_id] = span
        self._waiting.wake()

    def handed_over(self, trace: list[DDSpan]) -> bool:
        """Spans are about to go to the writer."""
        with self._lock:
            self._handed_over.extend(trace)
            for span in trace:
                self._opened.pop(span.span_id, None)
        self._waiting.wake()
        return self._send

    # -- what was recorded

    @property
    def spans(self) -> list[RecordedSpan]:
        """What was handed over, in the order of their starts."""
        handover.finish()
        with self._lock:
            handed_over = self._handed_over.copy()
        return sorted(map(recorded, handed_over), key=lambda span: span.start_ns)

    @property
    def open(self) -> list[RecordedSpan]:
        """What was started and has not ended, in the order of their starts."""
        with self._lock:
            opened = self._opened.copy()
        still = (recorded(as_ddtrace(span)) for span in opened.values() if is_open(span))
        return sorted(still, key=lambda span: span.start_ns)

    def names(self) -> set[str]:
        """The names of the spans handed over."""
        return {span.name for span in self.spans}

    def one(self, name: str) -> RecordedSpan:
        """The only span of that name. Raises `AssertionError`, with what there is, when there are none or more."""
        __tracebackhide__ = True
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans named {name!r} in\n{self.report()}")
        return found[0]

    def clear(self) -> None:
        """Forget what was recorded."""
        handover.finish()
        with self._lock:
            self._handed_over.clear()
            self._opened.clear()

    def traces(self) -> dict[int, list[RecordedSpan]]:
        """The spans by the id of their trace; traces and spans in the order of their starts.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     for name in ("one", "two"):
            ...         with span(name), span("inner"):
            ...             pass
            >>> [[one.name for one in spans] for spans in traces.traces().values()]
            [['one', 'inner'], ['two', 'inner']]
        """
        grouped: dict[int, list[RecordedSpan]] = {}
        for span in self.spans:
            grouped.setdefault(span.trace_id, []).append(span)
        return grouped

    def orphans(self) -> list[RecordedSpan]:
        """Spans with a parent that is nowhere: not recorded, not open, not in another process."""
        with self._lock:
            spans, kept = self.spans, list(self._opened.copy().values())
        unfinished = {span.trace_id for span in kept if is_open(span)}
        known = {span.span_id for span in spans}
        # a span that has ended may wait for the rest of its trace
        known |= {span.span_id for span in kept if span.trace_id in unfinished}
        return [span for span in spans if span.parent_id and span.parent_id not in known and not span.remote]

    def tree(self, label: Callable[[RecordedSpan], str] = by_name) -> str:
        """The spans as text, children below their parents and in the order of their starts, two spaces a level.

        `label` says what stands for a span; its name, if left out. An outcome other than ok is added in brackets.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     with span("http.request", resource="GET /"):
            ...         pass
            >>> print(traces.tree(lambda one: one.resource))
            GET /
        """
        return "\n".join(trees.draw(trees.forest(self.spans, label)))

    def report(self) -> str:
        """What a failure shows: the tree, and what is still open."""
        return (self.tree() or "(nothing)") + self._still_open()

    def _still_open(self) -> str:
        still = "\n".join(trees.draw(trees.forest(self.open, by_name)))
        return f"\nstill open:\n{trees.indented(still)}" if still else ""

    # -- what must hold

    def assert_tree(
        self, expected: str, *, ordered: bool = True, label: Callable[[RecordedSpan], str] = by_name
    ) -> None:
        """The traces are these: a line a span, children indented below their parents, outcomes in brackets.

        Every trace is there, each with its own first line. Siblings are in the order of their starts; with
        `ordered=False` in any. `label` as for `tree()`. Raises `AssertionError` with both trees.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     with span("checkout"):
            ...         for name in ("price", "pay"):
            ...             with span(name):
            ...                 pass
            >>> traces.assert_tree('''
            ...     checkout
            ...       price
            ...       pay
            ... ''')
            >>> traces.assert_tree('''
            ...     checkout
            ...       price (error)
            ...       pay
            ... ''')
            Traceback (most recent call last):
            AssertionError: the traces are not as expected (- expected, + recorded):
              checkout
            -   price (error)
            +   price
                pay
        """
        __tracebackhide__ = True
        roots = trees.forest(self.spans, label)
        if text := trees.difference(trees.read(expected), roots, ordered=ordered):
            text += self._still_open()
            raise AssertionError(f"the traces are not as expected (- expected, + recorded):\n{text}")

    def assert_no_orphans(self) -> None:
        """Every span's parent is known, see `orphans()`. Raises `AssertionError` with those whose parent is not.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     with span("outer"), span("inner"):
            ...         pass
            >>> traces.assert_no_orphans()
        """
        __tracebackhide__ = True
        if orphans := self.orphans():
            lines = "\n".join(
                f"  {span.name} (trace {span.trace_id:032x}, parent {span.parent_id:016x})"
                for span in orphans
            )
            raise AssertionError(f"the parents of these spans are nowhere:\n{lines}\nin\n{self.report()}")

    def assert_finished(self) -> None:
        """No span is open. Raises `AssertionError` with those that are.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     with span("outer"):
            ...         pass
            >>> traces.assert_finished()
        """
        __tracebackhide__ = True
        if count := len(self.open):
            raise AssertionError(f"{count} not finished:\n{self.report()}")

    def assert_no_crosstalk(self, by: str | Callable[[RecordedSpan], Hashable]) -> None:
        """Each request has a trace of its own, and no trace has two: told by a tag, or by what `by` makes of a span.

        Spans for which that is None belong to any. Raises `AssertionError` with the traces in question, and when no
        span tells.

        Example:
            >>> from asynctrace import span
            >>> with Recorder() as traces:
            ...     for user in ("ann", "bob"):
            ...         with span("request", tags={"user": user}), span("query"):
            ...             pass
            >>> traces.assert_no_crosstalk("user")
        """
        __tracebackhide__ = True
        if text := crosstalk(self.traces(), by):
            raise AssertionError(text)

    # -- waiting

    async def wait_for(
        self, what: int | str | Callable[[Recorder], object], timeout: float = 5.0
    ) -> list[RecordedSpan]:
        """Wait until so many spans were handed over, one of that name, or what a function of the recorder asks for.

        Gives the spans. Woken when spans are opened and handed over, in whatever loop or thread. Raises
        `AssertionError`, with what there is, when `timeout` seconds are over.

        Example:
            >>> import asyncio
            >>> from asynctrace import span
            >>> async def background():
            ...     with span("job"):
            ...         await asyncio.sleep(0)
            >>> async def main():
            ...     with Recorder() as traces:
            ...         task = asyncio.create_task(background())
            ...         return await traces.wait_for("job")
            >>> [one.name for one in asyncio.run(main())]
            ['job']
        """
        __tracebackhide__ = True
        met = _condition(what)
        if not await self._waiting.until(lambda: met(self), timeout):
            raise self._too_late(what, timeout)
        return self.spans

    def wait_for_sync(
        self, what: int | str | Callable[[Recorder], object], timeout: float = 5.0
    ) -> list[RecordedSpan]:
        """`wait_for` for code that is not async: blocks the thread.

        Example:
            >>> import threading
            >>> from asynctrace import atraced
            >>> @atraced("job")
            ... def work(): ...
            >>> with Recorder() as traces:
            ...     threading.Thread(target=work).start()
            ...     spans = traces.wait_for_sync(1)
            >>> [one.name for one in spans]
            ['job']
        """
        __tracebackhide__ = True
        met = _condition(what)
        if not self._waiting.until_sync(lambda: met(self), timeout):
            raise self._too_late(what, timeout)
        return self.spans

    def _too_late(self, what: object, timeout: float) -> AssertionError:
        wanted = {int: f"{what} spans", str: f"a span named {what!r}"}.get(type(what), f"{what!r}")
        return AssertionError(f"waited {timeout:g} s for {wanted}, got\n{self.report()}")


def _has_agent() -> bool:
    """Without one, ddtrace would try to send for seconds when the tests are over, and log that it failed."""
    return any(os.environ.get(name) for name in ("DD_TRACE_AGENT_URL", "DD_AGENT_HOST"))


def _condition(what: int | str | Callable[[Recorder], object]) -> Callable[[Recorder], object]:
    """What `wait_for` was asked for, as a function."""
    if isinstance(what, str):
        return lambda recorder: what in recorder.names()
    if isinstance(what, int):
        return lambda recorder: len(recorder.spans) >= what
    if callable(what):
        return what
    raise UsageError(
        f"can't wait for {what!r}", hint="a number of spans, the name of one, or a function of the recorder"
    )
