"""The Span handle: tags, errors, outcomes, ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
import weakref
from time import time_ns
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import SpanContext, UsageError, current_span, span, start_span
from asynctrace._core.outcome import outcome_of
from tests.core.process import run

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from tests.sink import Sink

# -- what is said of it


def test_everything_said_at_the_start(traces: Recorder) -> None:
    """Name, resource, service, type, kind and tags arrive as they were given."""
    with span("a", resource="r", service="s", type="web", kind="server", tags={"text": "x", "number": 7}):
        pass
    one = traces.one("a")
    assert (one.resource, one.service, one.type) == ("r", "s", "web")
    assert {"span.kind": "server", "text": "x", "number": 7}.items() <= one.tags.items()


def test_left_out_the_resource_is_the_name(traces: Recorder) -> None:
    """Without more than a name, a span has that resource and the program's service."""
    with span("a"):
        pass
    assert (traces.one("a").resource, traces.one("a").service) == ("a", "tests")


def test_tags_while_it_runs(traces: Recorder) -> None:
    """`set_tag`, `set_metric` and `resource` work until the end."""
    with span("a") as a:
        a.set_tag("text", "x")
        a.set_metric("number", 1.5)
        a.resource = "GET /items"
        assert (a.name, a.resource) == ("a", "GET /items")
    one = traces.one("a")
    assert (one.tags["text"], one.tags["number"], one.resource) == ("x", 1.5, "GET /items")


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError


class NotText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - on purpose


VALUES: tuple[Any, ...] = (
    *("text", "é", "half \ud83d pair", "\0", "x" * 100_000, b"\xff", bytearray(b"x"), None, True),
    *(7, -(2**63), 2**63, 2**64, 10**400, 1.5, float("nan"), float("inf"), Hostile(), NotText()),
    *([1, "a"], {"a": 1}, (), object, Exception("x")),
)
KEYS: tuple[Any, ...] = (
    *("key", "", "half \ud83d", 7, None, b"key", Hostile()),
    *("manual.keep", "manual.drop", "_dd.measured", "span.measured", "http.status_code", "version", "error"),
    *("service.name", "resource.name", "span.type", "_sampling_priority_v1", "_dd.p.dm", "error.message"),
)


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_no_tag_raises_or_is_logged(key: Any, sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    """Tags of every kind, the keys ddtrace treats specially included, harm nobody and spoil no payload."""
    for value in VALUES:
        with span("a", tags={key: value}) as a:
            a.set_tag(key, value)
            a.set_metric(key, value)
    assert len(sink.wait_for(len(VALUES))) == len(VALUES)
    assert not [record.getMessage() for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_name_raises_or_is_logged(value: Any, sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    """Names, resources, services and kinds of every type end up as text."""
    with span(value, resource=value, service=value or None, kind=value) as a:
        a.resource = value
    assert sink.wait_for(1)[0]["name"]
    assert not caplog.records


def test_a_type_is_made_text(sink: Sink) -> None:
    """`type=` is treated as the other texts are."""
    contextvars.Context().run(span("a", type="half \ud83d pair").__enter__().finish)
    assert sink.wait_for(1, timeout=1)[0]["type"] == "half ? pair"


def test_a_mapping_of_tags_is_not_changed() -> None:
    """The caller's dict stays what it was, with `kind=`, too."""
    tags = {"a": 1}
    with span("a", kind="client", tags=tags):
        pass
    assert tags == {"a": 1}


def test_wrong_tags_leave_no_open_span(traces: Recorder) -> None:
    """Tags that are no mapping are refused before anything is started."""
    wrong: Any = ["a"]
    with pytest.raises(UsageError, match="tags"), span("a", tags=wrong):
        pass
    assert traces.open == []


# -- links


def test_links(traces: Recorder) -> None:
    """Links to other spans arrive, with their attributes; the empty context is none."""
    with span("a") as a:
        pass
    with span("b") as b:
        b.link(a.context, {"why": "batch"})
        b.link(SpanContext())
    (link,) = traces.one("b").links
    assert (link.trace_id, link.span_id, link.attributes) == (a.trace_id, a.span_id, {"why": "batch"})


@pytest.mark.parametrize("attributes", [{"a": "\ud83d"}, {7: 1}, 7], ids=["surrogate", "key", "no mapping"])
def test_no_link_raises(attributes: Any) -> None:
    """Attributes of every kind harm nobody."""
    with span("a") as a:
        a.link(SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"}), attributes)


# -- errors and outcomes


@pytest.mark.parametrize(
    ("exc", "outcome", "error"),
    [
        (ValueError("x"), "error", 1),
        (TimeoutError(), "timeout", 1),
        (asyncio.TimeoutError(), "timeout", 1),
        (asyncio.CancelledError(), "cancelled", 0),
        (GeneratorExit(), "closed", 0),
        (KeyboardInterrupt(), "error", 1),
        (SystemExit(0), "ok", 0),
        (SystemExit(None), "ok", 0),
        (SystemExit(3), "error", 1),
        (StopIteration(), "error", 1),
    ],
    ids=repr,
)
def test_what_leaves_the_span_is_its_outcome(
    exc: BaseException, outcome: str, error: int, traces: Recorder
) -> None:
    """Errors and timeouts set the error flag, nothing else does; the exception goes on, the same object."""
    with pytest.raises(type(exc)) as caught, span("a"):
        raise exc
    assert caught.value is exc
    one = traces.one("a")
    assert (one.outcome, one.error) == (outcome, error)
    assert ("error.type" in one.tags) == bool(error)
    assert outcome_of(exc) == outcome


def test_an_error_says_type_message_and_stack(traces: Recorder) -> None:
    """As ddtrace's own: qualified type, message, traceback."""
    with pytest.raises(ZeroDivisionError), span("a"):
        _ = 1 / 0
    tags = traces.one("a").tags
    assert tags["error.type"] == "builtins.ZeroDivisionError"
    assert tags["error.message"] == "division by zero"
    assert "1 / 0" in tags["error.stack"]


def test_a_stack_holds_no_locals(traces: Recorder) -> None:
    """Lines of code, not the values that were there."""

    def charge(card: str) -> None:
        raise ValueError(len(card))

    with pytest.raises(ValueError), span("a"):
        charge(str(4700 + 11))
    stack = traces.one("a").tags["error.stack"]
    assert "raise ValueError(len(card))" in stack
    assert "4711" not in stack


def test_who_catches_inside_is_ok(traces: Recorder) -> None:
    """An exception that does not leave the span says nothing of it."""
    with span("a"):
        try:
            raise ValueError  # noqa: TRY301 - what is raised here is the point
        except ValueError:
            pass
    assert (traces.one("a").outcome, traces.one("a").error) == ("ok", 0)


def test_an_error_that_was_never_raised(traces: Recorder) -> None:
    """`set_error` takes any exception: one without a traceback, too."""
    with span("a") as a:
        a.set_error(ValueError("x"))
    one = traces.one("a")
    assert (one.error, one.outcome, one.tags["error.message"]) == (1, "error", "x")
    assert one.tags["error.type"] == "builtins.ValueError"


@pytest.mark.parametrize("what", ["boom", None, ValueError, 7])
def test_set_error_never_raises(what: Any, traces: Recorder) -> None:
    """What is no exception is an error all the same."""
    with span("a") as a:
        a.set_error(what)
    assert traces.one("a").error == 1


def test_the_exception_is_unchanged() -> None:
    """Same object, same context and notes, its traceback only grown by the frames it passed."""
    cause = KeyError("cause")
    exc = ValueError("x")
    with pytest.raises(ValueError) as caught, span("a"), span("b"):
        raise exc from cause
    assert caught.value is exc
    assert (exc.__cause__, exc.__context__) == (cause, None)
    assert not hasattr(exc, "__notes__")
    frames = []
    tb = exc.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    assert frames == ["test_the_exception_is_unchanged"]


class Odd(Exception):
    """Its text is what its class says."""


class Raises(Odd):
    def __str__(self) -> str:
        raise RuntimeError


class Surrogates(Odd):
    def __str__(self) -> str:
        return "half \ud83d pair"


class Falsy(Odd):
    def __bool__(self) -> bool:
        return False


class NoTruth(Odd):
    def __bool__(self) -> bool:
        raise RuntimeError


class NoModule(Odd):
    __module__ = None  # type: ignore[assignment]


class NoClass(Odd):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError


def left_by(kind: type[Odd]) -> tuple[str, Any]:
    """What comes out when such an exception leaves a span, and what is active then; in a context of its own."""

    def body() -> tuple[str, Any]:
        try:
            with span("a"):
                raise kind  # noqa: TRY301 - what is raised here is the point
        except BaseException as exc:
            return type(exc).__name__, current_span()

    return contextvars.Context().run(body)


@pytest.mark.parametrize(
    "kind",
    [Raises, Falsy, NoModule, Surrogates, NoTruth, NoClass],
)
def test_no_exception_is_exchanged_for_ours(kind: type[Odd], traces: Recorder) -> None:
    """However odd the user's exception is, it is what leaves the span, and the span is handed over."""
    assert left_by(kind) == (kind.__name__, None)
    assert traces.one("a").error == 1


def test_an_error_with_half_surrogates_is_delivered(sink: Sink) -> None:
    """A file name that is not UTF-8 in an error's message costs neither the exception nor the trace."""
    assert left_by(Surrogates) == ("Surrogates", None)
    assert sink.wait_for(1, timeout=1)[0]["meta"]["error.message"] == "half ? pair"


def test_a_falsy_exception_is_described(traces: Recorder) -> None:
    """Exceptions that are false (an empty collection, say) are errors like others."""
    left_by(Falsy)
    assert traces.one("a").tags["error.type"].endswith("Falsy")


def test_an_exception_is_not_kept_alive() -> None:
    """No cycle and no reference: once the user lets go of it, it is gone, with all its frames hold."""

    class Mine(Exception):
        pass

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Mine), span("a"), span("b"):
            raise Mine
        try:
            with span("a"):
                raise Mine  # noqa: TRY301 - what is raised here is the point
        except Mine as exc:
            gone = weakref.ref(exc)
        assert gone() is None
    finally:
        gc.enable()


async def test_cancellation_is_passed_on(traces: Recorder) -> None:
    """A cancelled task ends cancelled, its spans without an error."""
    entered = asyncio.Event()

    async def work() -> None:
        with span("a"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert (traces.one("a").outcome, traces.one("a").error) == ("cancelled", 0)


async def test_cancellation_is_not_delayed(traces: Recorder) -> None:
    """A traced task ends in the same turn of the loop as it would untraced."""

    async def turns(*, traced: bool) -> int:
        async def work() -> None:
            if not traced:
                await asyncio.get_running_loop().create_future()
            with span("outer"), span("inner"):
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        count = 0
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert await turns(traced=True) == await turns(traced=False)
    assert traces.tree() == "outer (cancelled)\n  inner (cancelled)"


# -- its end


def test_finishing_twice_does_nothing(traces: Recorder) -> None:
    """The first end counts; so does its outcome."""
    with span("a") as a:
        a.finish()
        end = traces.one("a").end_ns
    with pytest.raises(ValueError), span("b") as b:  # noqa: PT012 - what leaves the block is the point
        b.finish()
        raise ValueError
    a.finish()
    assert traces.one("a").end_ns == end
    assert traces.one("b").outcome == "ok"


def test_a_span_may_be_used_after_its_end() -> None:
    """Tags, links, errors and ids raise nothing then."""
    with span("a") as a:
        pass
    a.set_tag("late", 1)
    a.set_metric("late", 1)
    a.set_error(ValueError())
    a.link(a.context)
    a.resource = "x"
    assert a.trace_id
    assert a.span_id
    assert a.context


def test_finished_from_a_thread(traces: Recorder) -> None:
    """Any thread may end it; it is delivered once."""
    handle = start_span("a")
    threads = [threading.Thread(target=handle.finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traces.tree() == "a"


def test_a_handle_of_ddtraces_span_finishes_it(traces: Recorder) -> None:
    """`current_span()` inside `tracer.trace()` reaches its end, too."""
    from ddtrace.trace import tracer

    tracer.trace("a")
    handle = current_span()
    assert handle is not None
    handle.finish()
    handle.finish()
    assert current_span() is None
    assert traces.tree() == "a"


def test_an_unopened_span_says_how(traces: Recorder) -> None:
    """Used without `with`, it tells what is missing."""
    unopened = span("a")
    with pytest.raises(UsageError, match="with span"):
        unopened.set_tag("a", 1)
    assert repr(unopened) == "<Span 'a'>"


def test_with_start_span_is_one_span(sink: Sink) -> None:
    """`with start_span(...)` is a natural slip: one span, ended by its block, and nothing hangs below it."""
    program = """
        import faulthandler; faulthandler.dump_traceback_later(10, exit=True)
        from asynctrace import start_span
        from asynctrace.testing import Recorder
        from ddtrace.trace import tracer
        with Recorder() as traces, start_span("a"), tracer.trace("b"):
            pass
        print(traces.tree(), len(traces.open))
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == "a\n  b 0"


def test_a_span_may_be_entered_again_after_its_end(traces: Recorder) -> None:
    """The same `span(...)` object describes as many spans as it is entered, one after the other."""
    again = span("a")
    for _ in range(2):
        with again:
            pass
    assert traces.tree() == "a\na"


# -- the clock


def test_no_negative_duration(traces: Recorder) -> None:
    """The wall clock stepped back meanwhile: the span is short, not negative."""
    handle = span("a").open(start_ns=time_ns() + 3600 * 10**9)
    handle.finish()
    one = traces.one("a")
    assert 0 <= one.duration_ns < 10**6


def test_a_child_never_starts_before_its_parent(traces: Recorder) -> None:
    """The wall clock stepped back between the two: the child starts with its parent."""
    ahead = time_ns() + 3600 * 10**9
    parent = span("a").open(start_ns=ahead)
    with span("b"):
        pass
    parent.finish()
    assert traces.one("b").start_ns == traces.one("a").start_ns == ahead
    assert traces.one("b").duration_ns >= 0


# -- tracing off, or somebody else's


def test_disabled_costs_nothing_and_sends_nothing(sink: Sink) -> None:
    """With `DD_TRACE_ENABLED=false` there is one silent handle for all; importing asynctrace does not switch it on."""
    program = """
        import asyncio
        from ddtrace.trace import tracer
        from asynctrace import SpanContext, atraced, current_span, install, shutdown, span, start_span, trace_id
        @atraced
        async def work():
            return 7
        async def main():
            with span("a") as a, span("b", parent=SpanContext.extract({"x-datadog-trace-id": "7"})) as b:
                assert a is b is start_span("c")
                a.set_tag("a", 1); a.set_metric("a", 1); a.set_error(ValueError()); a.link(a.context); a.finish()
                a.set_outcome("error"); a.resource = "x"
                assert (a.trace_id, a.span_id, a.resource, trace_id(), current_span()) == (0, 0, "", "", None)
                assert not a.context and a.context.inject({}) == {}
                with tracer.trace("theirs"):
                    pass
            install()
            print(await work(), await shutdown(5), tracer.enabled)
        asyncio.run(main())
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url, DD_TRACE_ENABLED="false") == "7 True False"
    assert sink.spans() == []


def test_disabled_generators_work(sink: Sink) -> None:
    """Inside decorated generators, nothing is active while tracing is off."""
    program = """
        import asyncio
        from asynctrace import SpanContext, atraced, current_span, trace_id
        @atraced
        def plain():
            yield current_span(), trace_id()
        @atraced
        async def items():
            yield current_span(), trace_id(), bool(SpanContext.current())
        async def main():
            return [item async for item in items()]
        print(list(plain()), asyncio.run(main()))
    """
    assert (
        run(program, DD_TRACE_AGENT_URL=sink.url, DD_TRACE_ENABLED="false")
        == "[(None, '')] [(None, '', False)]"
    )


OTHER = """
        import json
        from ddtrace.trace import tracer
        from ddtrace._trace.provider import DefaultContextProvider
        class Other(DefaultContextProvider):
            pass
        def assign():
            global other
            tracer.context_provider = other = Other()
"""


def test_with_another_provider_spans_are_ddtraces(sink: Sink) -> None:
    """A provider assigned after ours (CI visibility, tornado): its rules hold, for spans of both kinds."""
    program = """
        from asynctrace import current_span, span, trace_id
        assign()
        with span("a") as a, tracer.trace("b"), span("c") as c:
            assert tracer.current_span().span_id == current_span().span_id == c.span_id
            assert trace_id() == f"{a.trace_id:032x}"
        assert tracer.current_span() is None and current_span() is None
    """
    run(OTHER + program, DD_TRACE_AGENT_URL=sink.url)
    spans = {s["name"]: s for s in sink.wait_for(3)}
    assert spans["c"]["parent_id"] == spans["b"]["span_id"]
    assert spans["b"]["parent_id"] == spans["a"]["span_id"]


def test_with_another_provider_contexts_still_cross(sink: Sink) -> None:
    """`SpanContext.current()` is what is active there, and `attached` and `detached` work."""
    program = """
        from asynctrace import SpanContext, attached, detached, span
        assign()
        with span("a") as a:
            current = SpanContext.current() == a.context
            with detached(), span("b") as b:
                alone = b.trace_id != a.trace_id
        with attached(a.context), span("c") as c:
            print(json.dumps([current, alone, c.trace_id == a.trace_id]))
    """
    assert json.loads(run(OTHER + program, DD_TRACE_AGENT_URL=sink.url)) == [True, True, True]


def test_another_provider_that_was_there_first_stays(sink: Sink) -> None:
    """One that somebody installed before asynctrace is used is not replaced."""
    program = """
        assign()
        from asynctrace import span
        print(tracer.context_provider is other)
    """
    assert run(OTHER + program, DD_TRACE_AGENT_URL=sink.url) == "True"


def test_first_used_inside_a_span_of_ddtrace(sink: Sink) -> None:
    """The first use of asynctrace may come inside `tracer.trace()`: its spans are below that one."""
    program = """
        from ddtrace.trace import tracer
        with tracer.trace("outer"):
            from asynctrace import span
            with span("inner"):
                pass
    """
    run(program, DD_TRACE_AGENT_URL=sink.url)
    spans = {s["name"]: s for s in sink.wait_for(2)}
    assert spans["inner"]["parent_id"] == spans["outer"]["span_id"]
