"""A private server: it works, keeps its data while it lives, and nothing of it outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demos.services.process import unprivileged
from tests.services.helpers import (
    MAKERS,
    ROOT,
    get,
    listening,
    port_of,
    processes_of,
    put,
    wait_for_the_end_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demos.services import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open and /proc")

HOLD = """
import sys, time
from tests.services.helpers import MAKERS, port_of
service = MAKERS[sys.argv[1]](private=True)
print(service.server.folder, port_of(service), service.server._keeper.pid, flush=True)
{then}
"""


@pytest.fixture(scope="module", params=["postgres", "rabbitmq"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with MAKERS[request.param](private=True) as service:
        yield service


def hold(kind: str, then: str) -> tuple[subprocess.Popen[str], str, int, int]:
    """A process of its own that holds a private server: (process, folder, port, supervisor's pid)."""
    command = [sys.executable, "-c", HOLD.format(then=then), kind]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    folder, port, supervisor = process.stdout.readline().split()
    process.stdout.close()
    return process, folder, int(port), int(supervisor)


@linux
async def test_data_and_port_survive_a_kill_and_a_restart(service: Service) -> None:
    """After SIGKILL nothing listens and no process is left; restarted, it is the same server."""
    assert service.server
    port, folder = port_of(service), str(service.server.folder)
    await put(service, "still here")
    service.kill()
    assert not listening(port)
    # The supervisor names the folder, and stays.
    assert len(processes_of(folder)) == 1
    service.restart()
    assert port_of(service) == port
    assert await get(service) == "still here"


async def test_an_orderly_stop_and_start_keep_the_port(service: Service) -> None:
    """Stopped, nothing listens; restart works from there, and from a running server."""
    port = port_of(service)
    service.stop()
    assert not listening(port)
    service.restart()
    assert listening(port)


@linux
def test_the_server_runs_as_an_unprivileged_user(service: Service) -> None:
    """Where we are root, none of the server's processes is."""
    assert service.server
    supervisor = service.server._keeper.pid
    user = unprivileged()
    expected = user.pw_uid if user else os.geteuid()
    pids = [int(line.split()[0]) for line in processes_of(str(service.server.folder))]
    owners = {pid: Path(f"/proc/{pid}").stat().st_uid for pid in pids if pid != supervisor}
    assert owners
    assert set(owners.values()) == {expected}


def test_a_fork_that_ends_does_not_take_the_server_with_it(service: Service) -> None:
    """Exit handlers run in forks as well; the server belongs to the process that started it."""
    pid = os.fork()
    if pid == 0:
        service.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert listening(port_of(service))


@pytest.mark.parametrize("kind", ["postgres", "rabbitmq"])
def test_nothing_is_left_after_close(kind: str) -> None:
    """No process, no port, no folder; closing twice is closing once."""
    service = MAKERS[kind](private=True)
    assert service.server
    assert service.how.startswith("private, from ")
    folder, port = service.server.folder, port_of(service)
    assert listening(port)
    service.close()
    service.close()
    assert not folder.exists()
    assert not listening(port)
    assert processes_of(str(folder)) == []


@linux
@pytest.mark.parametrize("kind", ["postgres", "rabbitmq"])
def test_nothing_is_left_after_sigkill_of_our_process(kind: str) -> None:
    """However we end: the supervisor sees it, kills every process of the server and removes its folder."""
    process, folder, port, supervisor = hold(kind, "time.sleep(600)")
    assert listening(port)
    assert processes_of(folder)
    process.kill()
    process.wait()
    assert wait_for_the_end_of(supervisor, 20)
    assert processes_of(folder) == []
    assert not listening(port)
    assert not Path(folder).exists()


@linux
def test_a_forked_child_that_lives_on_does_not_keep_the_server() -> None:
    """A fork holds our end of the pipe as well: the supervisor looks whose child it is, too."""
    process, folder, port, supervisor = hold(
        "postgres", "import os\nos.fork() or time.sleep(600)\ntime.sleep(600)"
    )
    children = [child for child in _children_of(process.pid) if child != supervisor]
    process.kill()
    process.wait()
    try:
        assert wait_for_the_end_of(supervisor, 20)
        assert processes_of(folder) == []
        assert not listening(port)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def _children_of(pid: int) -> list[int]:
    deadline = time.monotonic() + 10
    while True:  # until the fork is there beside the supervisor
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(found) >= 2 or time.monotonic() > deadline:
            return [int(child) for child in found]


@linux
@pytest.mark.parametrize("kind", ["postgres", "rabbitmq"])
def test_the_server_goes_with_its_supervisor(kind: str) -> None:
    """Somebody kills the supervisor itself: the server is told by the kernel, and ends."""
    with MAKERS[kind](private=True) as service:
        assert service.server
        os.kill(service.server._keeper.pid, signal.SIGKILL)
        assert wait_for_the_end_of(service.server.pid, 20)
    assert not service.server.folder.exists()
