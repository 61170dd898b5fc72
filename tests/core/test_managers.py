"""Context managers under `@atraced`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import UsageError, atraced, current_span, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from asynctrace.testing import Recorder


def mark(name: str) -> None:
    with span(name):
        pass


def fail(kind: type[Exception]) -> None:
    raise kind


@atraced("lease")
@contextlib.asynccontextmanager
async def lease(*, fails: bool = False) -> AsyncIterator[str]:
    """Something one holds for a while."""
    mark("acquire")
    if fails:
        raise ConnectionError
    try:
        yield "it"
    finally:
        mark("release")


@atraced("plain lease", capture=("name",))
@contextlib.contextmanager
def plain_lease(name: str) -> Iterator[str]:
    mark("acquire")
    try:
        yield name
    except KeyError:
        mark("swallow")


@atraced("connection")
class Connection:
    """A class of context managers, async and plain."""

    def __init__(self, *, swallows: bool = False) -> None:
        self.swallows = swallows

    async def __aenter__(self) -> Self:
        mark("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        mark("close")
        return self.swallows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...


TREE = "{0}\n  acquire\n  work\n  release\nafter"


async def test_a_block_is_a_span(traces: Recorder) -> None:
    """From enter to exit: what the manager does and what the block does are its children."""
    async with lease() as held:
        assert held == "it"
        mark("work")
    mark("after")
    assert traces.tree() == TREE.format("lease")


async def test_a_plain_one_alike(traces: Recorder) -> None:
    """`@contextmanager`, with its arguments captured; an exception that it swallows is no error."""
    with plain_lease("seven") as held:
        assert held == "seven"
        fail(KeyError)
    assert traces.tree() == "plain lease\n  acquire\n  swallow"
    assert traces.one("plain lease").tags["name"] == "seven"


async def test_entered_here_left_in_another_task(traces: Recorder) -> None:
    """What the manager does on its way out belongs to its span; nothing stays active where it was entered."""
    manager = lease()
    with span("request"):
        await manager.__aenter__()
        mark("work")

        async def leave() -> None:
            with span("other"):
                await manager.__aexit__(None, None, None)

        await asyncio.create_task(leave())
        mark("after")
    traces.assert_tree("""
        request
          lease
            acquire
            work
            other
            release
          after
    """)


async def test_left_where_nothing_of_it_is_known(traces: Recorder) -> None:
    """In a task that was there before."""
    handed_over = asyncio.get_running_loop().create_future()

    async def leave() -> None:
        manager = await handed_over
        await manager.__aexit__(None, None, None)
        assert current_span() is None

    task = asyncio.create_task(leave())
    manager = lease()
    await manager.__aenter__()
    handed_over.set_result(manager)
    await task
    assert current_span() is None
    assert traces.tree() == "lease\n  acquire\n  release"


async def test_outcomes(traces: Recorder) -> None:
    """What leaves the block is the outcome, and what keeps one from entering it."""
    for exc in (ValueError, asyncio.CancelledError):
        with pytest.raises(exc):
            async with lease():
                raise exc
        assert traces.one("lease").outcome == ("error" if exc is ValueError else "cancelled")
        traces.clear()
    with pytest.raises(ConnectionError):
        await lease(fails=True).__aenter__()
    assert traces.tree() == "lease (error)\n  acquire"
    assert current_span() is None


async def test_a_class(traces: Recorder) -> None:
    """The class stays itself; each block of an instance is a span, nested ones too."""
    assert inspect.isclass(Connection)
    connection = Connection(swallows=True)
    assert isinstance(connection, Connection)
    async with connection, connection:
        mark("work")
        fail(ValueError)
    with Connection():
        mark("plain")
    traces.assert_tree("""
        connection
          open
          connection
            open
            work
            close
          close
        connection
          plain
    """)
    assert vars(connection) == {"swallows": True}


async def test_as_a_decorator(traces: Recorder) -> None:
    """Managers of contextlib decorate functions: a block, and a span, for each call."""

    @lease()
    async def work() -> int:
        """Work."""
        mark("work")
        return 3

    @plain_lease("it")
    def plain_work() -> None:
        mark("work")

    assert await work() == 3
    assert await work() == 3
    plain_work()
    assert work.__doc__ == "Work."
    traces.assert_tree("""
        lease
          acquire
          work
          release
        lease
          acquire
          work
          release
        plain lease
          acquire
          work
    """)


async def test_what_is_made_is_what_contextlib_makes(traces: Recorder) -> None:
    """`isinstance` and an exit stack see no difference; a manager that is never entered has no span."""
    assert isinstance(lease(), contextlib.AbstractAsyncContextManager)
    async with contextlib.AsyncExitStack() as stack:
        assert await stack.enter_async_context(lease()) == "it"
        assert stack.enter_context(plain_lease("it")) == "it"
    assert traces.tree() == "lease\n  acquire\n  plain lease\n    acquire\n  release"


def test_what_cannot_be_decorated() -> None:
    """A class that is no context manager, or has no room for a span, and arguments of a class."""

    class Plain: ...

    class Slotted:
        __slots__ = ()

        def __enter__(self) -> None: ...
        def __exit__(self, *exc: object) -> None: ...

    things: list[Any] = [Plain, Slotted]
    for thing in things:
        with pytest.raises(UsageError, match="context managers"):
            atraced(thing)
    with pytest.raises(UsageError, match="swallows"):
        atraced(capture=("swallows",))(Connection)
