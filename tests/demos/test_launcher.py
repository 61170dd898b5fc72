"""`python3 -m demos` as a command: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from demos import launcher
from demos.processes import DemoError, Running, ServiceProcess, plain_environment
from tests.agent.processes import viewing
from tests.demos.rows import drawings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demos.services import Service

ROOT = Path(__file__).parents[2]
CLOSING = r"^trace [0-9a-f]{32}: (\d+) spans, 3 services \(pricing, shop, worker\)$"

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(60)]
"""Processes of their own take a second or two to start, more on a busy machine."""


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it."""
    command = [sys.executable, "-m", "demos", *arguments]
    environment = {**plain_environment(), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ran(servers: None) -> subprocess.CompletedProcess[str]:
    """One run, in a terminal of 100 columns."""
    return demo(COLUMNS="100")


def test_the_command_draws_every_trace_and_ends_well(ran: subprocess.CompletedProcess[str]) -> None:
    """`python3 -m demos`: each trace with its last line, exit code 0, nothing on stderr."""
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.findall(CLOSING, ran.stdout, re.MULTILINE) == ["15", "16", "14"]
    assert [len(rows) for rows in drawings(ran.stdout)] == [15, 16, 14]
    assert re.fullmatch(CLOSING, ran.stdout.rstrip().splitlines()[-1])
    assert max(map(len, ran.stdout.splitlines())) <= 100


def test_the_readme_shows_what_the_command_draws(ran: subprocess.CompletedProcess[str]) -> None:
    """The README's picture of the demo has the rows, in the order, that the command draws."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert drawings(ran.stdout)[0] in drawings(readme)


def test_each_trace_has_an_address(ran: subprocess.CompletedProcess[str]) -> None:
    """In the viewer that the demo brings along."""
    traces = re.findall(r"^trace ([0-9a-f]{32}):", ran.stdout, re.MULTILINE)
    assert (
        re.findall(r"^In the browser: http://127\.0\.0\.1:\d+/#/t/([0-9a-f]{32})$", ran.stdout, re.MULTILINE)
        == traces
    )


@pytest.mark.slow
def test_a_viewer_beside_gets_the_traces() -> None:
    """Where `asynctrace view` runs, the addresses are its own, and outlive the demo."""
    with viewing() as view:
        ran = demo(DD_TRACE_AGENT_URL=view.url)
        traces = re.findall(rf"^In the browser: {view.url}/#/t/([0-9a-f]{{32}})$", ran.stdout, re.MULTILINE)
        assert [len(view.get(f"/traces/{one}")["spans"]) for one in traces] == [15, 16, 14]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_at_a_terminal_the_page_stays_until_enter() -> None:
    """Whoever reads it there can look at the traces in the browser before they are gone."""
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "demos"], env=plain_environment(), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while b"until you press Enter" not in said:
            said += os.read(ours, 65_536)
        address = re.findall(r"http://127\.0\.0\.1:\d+/", said.decode())[-1]
        with urllib.request.urlopen(address) as page:
            assert b"<title>asynctrace</title>" in page.read()
        os.write(ours, b"\n")
        assert process.wait(timeout=20) == 0
    os.close(ours)


@pytest.mark.slow
def test_the_users_environment_does_no_harm() -> None:
    """Tracing settings are for the user's programs; a terminal that can't write bars gets others."""
    ran = demo(
        DD_TRACE_ENABLED="false",
        DD_SERVICE="mine",
        DD_TRACE_SAMPLE_RATE="0",
        OTEL_TRACES_EXPORTER="none",
        PYTHONIOENCODING="ascii",
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(re.findall(CLOSING, ran.stdout, re.MULTILINE)) == len(launcher.ORDERS)
    assert ran.stdout.isascii()


@contextmanager
def kept() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`python3 -m demos --keep` once it has told its addresses; never left running."""
    command = [sys.executable, "-m", "demos", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [line.strip() for line in iter(process.stdout.readline, "Ctrl-C ends it.\n")]
            told = dict(
                line.split(maxsplit=1) for line in lines if line.startswith(("agent  ", "shop   ", "curl "))
            )
            yield process, told
        finally:
            process.kill()


def listens(address: str) -> bool:
    url = urlsplit(address)
    try:
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 0), pytest.param(signal.SIGTERM, 128 + signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_keep_leaves_everything_running_until_it_is_told(number: signal.Signals, code: int) -> None:
    """`--keep` prints the addresses, takes orders, and ends at Ctrl-C with everything it started."""
    with kept() as (process, told):
        body = re.findall(r"'(.*)'", told["curl"])[0]
        assert json.loads(body) == {"customer": "ann", "items": ["tea"]}
        shop = Running(told["shop"], ())
        assert launcher.place(shop, launcher.Order("ann", ("tea",), "", "")) == (201, "total 4")
        assert listens(told["agent"])
        process.send_signal(number)
        _, complaints = process.communicate()
        assert (process.returncode, complaints) == (code, "")
    assert not listens(told["shop"])
    assert not listens(told["agent"])


def test_services_end_with_a_launcher_that_is_killed(postgres: Service) -> None:
    """SIGKILL leaves the launcher no time to stop them: they see that it is gone."""
    program = """if True:
        import os, time
        from demos.processes import ServiceProcess
        print(ServiceProcess("pricing", os.environ).wait_until_ready().address, flush=True)
        time.sleep(60)"""
    environment = {**plain_environment(), "DEMO_POSTGRES_URL": postgres.url, "DD_TRACE_ENABLED": "false"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert listens(address)
        process.kill()
    while listens(address):
        pass


def test_a_service_that_does_not_start_says_why() -> None:
    """Its name and its own words."""
    service = ServiceProcess("nonsense", plain_environment())
    try:
        with pytest.raises(
            DemoError, match=r"nonsense did not start:(.|\n)*No module named 'demos.nonsense'"
        ):
            service.wait_until_ready()
    finally:
        service.stop()


def test_a_service_that_ends_is_named_where_its_trace_is_missed() -> None:
    """Nobody waits for a shop that is gone without a word why."""
    service = ServiceProcess("nonsense", plain_environment())
    service._process.wait()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(DemoError, match=r"nonsense has ended:(.|\n)*No module named"):
        launcher.place(Running(address, (service,)), launcher.ORDERS[0])
    service.stop()


def test_without_a_broker_the_demo_says_what_to_do() -> None:
    """A clear message and exit code 1, no traceback."""
    ran = demo(ASYNCTRACE_AMQP_URL="amqp://guest:wrong@127.0.0.1:1/")
    assert ran.returncode == 1
    assert "ASYNCTRACE_AMQP_URL" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_help_teaches() -> None:
    """`--help` has a line to copy for every way to run it, and fits a terminal."""
    text = demo("--help", COLUMNS="80").stdout
    assert all(f"python3 -m demos {word}" in text for word in ("--keep", "flamegraphs", "envoy"))
    assert max(map(len, text.splitlines())) <= 80


def test_what_keep_cannot_do_is_said() -> None:
    """The flame graphs are programs that end: a wrong use, exit code 2, and why."""
    ran = demo("flamegraphs", "--keep")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--keep is for services" in ran.stderr


def test_ctrl_c_while_it_is_loaded_is_no_traceback() -> None:
    """The first moments are spent on imports; who changes their mind then sees nothing of them."""
    program = """if True:
        import runpy, sys
        class Interrupting:
            def find_spec(self, name, *_):
                if name == "demos.launcher":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupting())
        runpy.run_module("demos", run_name="__main__", alter_sys=True)"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + signal.SIGINT, "", "")
