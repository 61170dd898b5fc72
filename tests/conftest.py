"""What every test has: an agent that only listens, no network but loopback, and a check that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.sink import Sink

# Before ddtrace is imported, which reads its settings once.
SINK = Sink().start()
for name in tuple(os.environ):
    if name.startswith(("DD_", "OTEL_")):
        del os.environ[name]
os.environ.update(
    DD_TRACE_AGENT_URL=SINK.url,
    DD_SERVICE="tests",
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    DD_TRACE_WRITER_INTERVAL_SECONDS="0.05",
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from demos.services import Service


def pytest_configure(config: pytest.Config) -> None:
    """The fixture `traces` is our own plugin's, also where asynctrace was installed before it had one."""
    if not config.pluginmanager.has_plugin("asynctrace"):
        from asynctrace import pytest_plugin

        config.pluginmanager.register(pytest_plugin, "asynctrace")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, files with patient tests come first: a long test that begins last holds everybody up."""
    if not hasattr(config, "workerinput"):
        return
    patience: dict[Path, float] = defaultdict(float)
    for item in items:
        if limit := item.get_closest_marker("timeout"):
            patience[item.path] = max(patience[item.path], limit.args[0])
    items.sort(key=lambda item: -patience[item.path])


ON_BOTH = (
    "tests/core/",
    "tests/web/test_disconnects",
    "tests/web/test_calling_connections",
    "tests/web/test_responses",
    "tests/web/test_websockets",
)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The core's rules, and those of connections, hold on both event loops; elsewhere the stock one will do."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if any(part in item.path.as_posix() for part in ON_BOTH) and sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No span is active, before and after, no recorder is left running, and every patch comes off."""
    from asynctrace import current_span, uninstall
    from asynctrace._core.listening import listeners
    from asynctrace._core.provider import top_entry

    assert current_span() is None, "a span is active before the test"
    yield
    uninstall()
    left, recording = current_span(), tuple(listeners)
    top_entry.set(None)  # one test's fault is not the next one's
    listeners.clear()
    assert left is None, "the test left a span active"
    assert not recording, "the test left a recorder running"


@pytest.fixture(autouse=True)
async def no_task_pending(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No task of ours or of the test's is left running (of asynchronous tests: others have no loop)."""
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, f"tasks left running: {left}"


@pytest.fixture
def sink() -> Sink:
    """What is traced from now on and arrives at the agent; earlier spans may still be on their way."""
    SINK.requests.clear()
    SINK.since_ns = time.time_ns()
    return SINK


@pytest.fixture(scope="session")
def postgres() -> Iterator[Service]:
    """A real PostgreSQL."""
    from demos.services import postgres

    with postgres() as service:
        yield service


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Service]:
    """A real RabbitMQ."""
    from demos.services import rabbitmq

    with rabbitmq() as service:
        yield service


@pytest.fixture
def installed() -> Callable[..., Any]:
    """`install`, undone after the test as after every one."""
    from asynctrace import install

    return install
