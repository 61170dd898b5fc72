"""A broker that is killed and comes back, five times, under traffic: what it delivered is what was traced."""

from __future__ import annotations

import asyncio
import collections
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from demos.services import rabbitmq
from tests.core.process import ROOT, environment
from tests.messages.conftest import CUT_OFF, delivered
from tests.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.testing import Recorder
    from demos.services import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

STYLES = ("callback", "iterator", "get")

RESTARTS = 5


@pytest.fixture(scope="module")
def broker() -> Iterator[Service]:
    """One of our own."""
    with rabbitmq(private=True) as service:
        yield service


class End:
    """A process at one end of the traffic, and the lines it has printed."""

    def __init__(self, role: str, broker: Service, sink: Sink) -> None:
        self.role = role
        self.lines: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        settings = {"BROKER": broker.url, "DD_TRACE_AGENT_URL": sink.url, "DD_SERVICE": role}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.traffic", role],
            env=environment(**settings),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # aio-pika logs what it goes through
            text=True,
        )
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        self.wait_for(1)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(json.loads(line))
                self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Until it has printed so many more lines."""
        with self.changed:
            wanted = len(self.lines) + count
            came = self.changed.wait_for(lambda: len(self.lines) >= wanted, 40)
        assert came, f"{self.role}: {len(self.lines)} of {wanted} lines"

    def stop(self) -> None:
        """It ends by itself, having sent its traces."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0, self.role
        self.thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def ends(broker: Service) -> Iterator[tuple[dict[str, End], Sink]]:
    """A publisher, and a consumer in each style, each a process."""
    sink = Sink().start()
    ends: dict[str, End] = {}
    try:
        for role in (*STYLES, "publish"):
            ends[role] = End(role, broker, sink)
        yield ends, sink
    finally:
        for end in ends.values():
            end.kill()
        sink.stop()


def test_five_restarts(ends: tuple[dict[str, End], Sink], broker: Service) -> None:
    """Every message the broker delivered has its span below its publish span; none is invented, and none is lost."""
    processes, sink = ends
    for turn in range(RESTARTS):
        for end in processes.values():
            end.wait_for(20)
        (broker.kill if turn % 2 else broker.stop)()
        broker.restart()
    for end in processes.values():
        end.wait_for(20)
    processes["publish"].stop()
    for style in STYLES:
        processes[style].stop()
    spans = sink.spans()
    publishes = {one["meta"]["messaging.message_id"]: one for one in spans if kind(one) == "producer"}
    assert_publishes(processes["publish"].lines, publishes)
    for style in STYLES:
        assert_deliveries(
            processes[style].lines, [one for one in spans if one["service"] == style], publishes
        )


def kind(one: dict[str, Any]) -> str | None:
    found: str | None = one["meta"].get("span.kind")
    return found


def assert_publishes(lines: list[dict[str, Any]], publishes: dict[str, Any]) -> None:
    """A span for each attempt to publish, an error for each that was not confirmed."""
    tried = {line["published"]: line["ok"] for line in lines if "published" in line}
    assert set(publishes) == set(tried)
    assert {key: not one["error"] for key, one in publishes.items()} == tried
    assert not all(tried.values()), "no restart was noticed"


def assert_deliveries(
    lines: list[dict[str, Any]], spans: list[dict[str, Any]], publishes: dict[str, Any]
) -> None:
    """A span for each delivery, below the publish span of its message; what was in flight is no error of ours."""
    delivers = [one for one in spans if kind(one) == "consumer"]
    seen = collections.Counter(line["delivered"] for line in lines if "delivered" in line)
    assert collections.Counter(one["meta"]["messaging.message_id"] for one in delivers) == seen
    for one in delivers:
        publish = publishes[one["meta"]["messaging.message_id"]]
        assert (one["trace_id"], one["parent_id"]) == (publish["trace_id"], publish["span_id"])
    outcomes = collections.Counter(one["meta"].get("async.outcome", "ok") for one in delivers)
    assert set(outcomes) <= {"ok", "disconnected", "cancelled", "error"}
    assert outcomes["ok"] > len(delivers) / 2
    works = {one["parent_id"] for one in spans if one["name"] == "work"}
    assert works == {one["span_id"] for one in delivers}


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("connect", [aio_pika.connect, aio_pika.connect_robust])
async def test_in_flight(
    connect: Callable[..., Any], how: str, installed: Any, traces: Recorder, broker: Service
) -> None:
    """A handler that is at work when the broker goes away: cancelled by aio-pika, its span ends as disconnected."""
    installed("aio_pika")
    in_flight, cut_off = asyncio.Event(), asyncio.Event()

    async def handle(_: Any) -> None:
        in_flight.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cut_off.set()
            raise

    connection = await connect(broker.url)
    channel = await connection.channel()
    queue = await channel.declare_queue(exclusive=True)
    await queue.consume(handle)
    await channel.default_exchange.publish(aio_pika.Message(b"tea"), queue.name)
    await in_flight.wait()
    await asyncio.to_thread(getattr(broker, how))
    await cut_off.wait()
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.error) == (CUT_OFF, 0)
    await connection.close()
    await asyncio.to_thread(broker.restart)
    traces.assert_finished()
