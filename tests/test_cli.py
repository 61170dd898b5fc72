"""The command line, as a user has it: in processes of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from asynctrace import cli
from asynctrace.agent import AgentThread, agent_environment, start_in_thread
from tests.agent.payloads import TRACE_ID, chunk, span

ROOT = Path(__file__).parent.parent
ID = f"{TRACE_ID:032x}"
TRACED = """
from ddtrace.trace import tracer
with tracer.trace("job", service="shop", resource="nightly"):
    print("hello")
"""


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DD_", "OTEL_", "NO_COLOR"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def asynctrace(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "asynctrace", *arguments],
        env=environment(**env), capture_output=True, encoding="utf-8", timeout=15, check=False,
    )  # fmt: skip


@pytest.fixture
def agent() -> Iterator[AgentThread]:
    with start_in_thread() as running:
        running.store.add(
            [chunk(span(1, resource="GET /cart", ms=40), span(2, 1, service="pricing", at=5, ms=9))]
        )
        yield running


def last_line(text: str) -> str:
    return text.rstrip("\n").rsplit("\n", 1)[-1]


def test_show_draws_a_trace(agent: AgentThread) -> None:
    """`show` takes an id, its beginning or end, or `last`, and ends in the line for programs."""
    for wanted in (ID, ID[:9], ID[-9:], "last"):
        done = asynctrace("show", wanted, "--url", agent.url, "--width", "80")
        assert (done.returncode, done.stderr) == (0, "")
        assert last_line(done.stdout) == f"trace {ID}: 2 spans, 2 services (pricing, shop)"
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_show_finds_the_agent_as_ddtrace_does(agent: AgentThread) -> None:
    """Without --url, DD_TRACE_AGENT_URL says where the agent is, and no proxy comes between."""
    done = asynctrace("show", "last", DD_TRACE_AGENT_URL=agent.url, http_proxy="http://127.0.0.1:9")
    assert done.returncode == 0


def test_show_in_colour_and_in_ascii(agent: AgentThread) -> None:
    """--color always colours a pipe; a stream that cannot write blocks gets ASCII."""
    assert "\x1b[" in asynctrace("show", "last", "--url", agent.url, "--color", "always").stdout
    plain = asynctrace("show", "last", "--url", agent.url, PYTHONIOENCODING="ascii")
    assert plain.returncode == 0
    assert plain.stdout.isascii()


def test_show_json_is_the_trace(agent: AgentThread) -> None:
    """--json prints what the read API has."""
    found = json.loads(asynctrace("show", "last", "--url", agent.url, "--json").stdout)
    assert [one["span_id"] for one in found["spans"]] == ["1", "2"]


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"version": "7.60.0", "endpoints": []}' if self.path == "/info" else b"404 page not found"
        self.send_response(200 if self.path == "/info" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_show_says_when_it_is_another_agent() -> None:
    """What answers but has no traces is named, with a hint."""
    with HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            done = asynctrace("show", "last", "--url", f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 1
    assert (
        "is not asynctrace's agent but a Datadog agent 7.60.0 (start one with `asynctrace view`"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "last", "--url", "http://127.0.0.1:1"], 1, "nothing answers"),
        (["show", "last", "--url", "unix:///var/run/datadog/apm.socket"], 2, "unix socket"),
        (["show", "last", "--url", "localhost:8126"], 2, "not an address"),
        (["show", "last", "--url", "http://a:b"], 2, "not an address"),
        (["show"], 2, "ID|last"),
        (["show", "last", "--width", "3"], 2, "40"),
        (["view", "--port", "99999"], 2, "65535"),
        (["view", "--port", "0", "--forward", "agent"], 2, "no agent's address"),
        (["view", "--port", "0", "--db", "/no/such/dir/db"], 2, "cannot use"),
        (["view", "--port", "0", "--socket", "/no/such/dir/socket"], 1, "cannot listen at"),
        (["view", "--host", "192.0.2.1", "--port", "0"], 1, "cannot listen"),
        (["view", "--port", "0", "--port-file", "/no/such/dir/port"], 2, "cannot write"),
        (["run"], 2, "what to run?"),
        (["run", "--", "/no/such/command"], 127, "No such file"),
        (["run", "--", "/"], 126, "ermission denied"),
        ([], 2, "required"),
    ],
)
def test_errors_are_one_line(arguments: Sequence[str], code: int, said: str) -> None:
    """An error is told in its last line, without a traceback, and in the exit code."""
    done = asynctrace(*arguments)
    assert done.returncode == code
    assert said in last_line(done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_show_an_unknown_and_an_ambiguous_id(agent: AgentThread) -> None:
    """A trace that is not there is exit code 1; an id that may be two names both."""
    agent.store.add([chunk(span(1), low=9)])
    missing = asynctrace("show", "ffff", "--url", agent.url)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("asynctrace: no trace ffff (")
    ambiguous = asynctrace("show", "6b04", "--url", agent.url)
    assert ambiguous.returncode == 1
    assert ID in ambiguous.stderr


@pytest.mark.parametrize("command", [[], ["view"], ["run"], ["show"]], ids=str)
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every --help ends in examples."""
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert left.value.code == 0
    assert "examples:\n  asynctrace " in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version says it."""
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"asynctrace \d\S*\n", capsys.readouterr().out)


def test_neither_ddtrace_nor_the_core_is_loaded() -> None:
    """The agent is another program: it loads no tracer, and `show` not even its server."""
    code = (
        "import sys, asynctrace.cli, asynctrace.agent.client, asynctrace.agent.terminal\n"
        "assert not {'aiohttp', 'msgspec'} & set(sys.modules)\n"
        "import asynctrace.agent.live, asynctrace.agent.run\n"
        "assert not [name for name in sys.modules if name.startswith(('ddtrace', 'asynctrace._core'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=15)


def test_missing_parts_are_named() -> None:
    """Without the extra, `view` and `run` say how to get it, and `show` works."""
    code = (
        "import sys, importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('aiohttp', 'msgspec') else real(name, *a)\n"
        "sys.modules['aiohttp'] = sys.modules['msgspec'] = None\n"
        "from asynctrace.cli import main\n"
        "assert main(['view']) == main(['run', '--', 'true']) == 1\n"
        "assert main(['show', 'last', '--url', 'http://127.0.0.1:1']) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        check=True,
        timeout=15,
        capture_output=True,
        text=True,
    )
    assert done.stderr.count('pip install "asynctrace[view]"') == 2
    assert "nothing answers" in done.stderr


def test_run_draws_the_traces_of_its_command() -> None:
    """`run` passes output through, draws what was traced, and ends in the line for programs."""
    done = asynctrace("run", "--width", "80", "--", sys.executable, "-c", TRACED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hello\n\nnightly  ")
    assert re.fullmatch(r"trace [0-9a-f]{32}: 1 span, 1 service \(shop\)", last_line(done.stdout))


def test_run_prints_the_newest_traces_only() -> None:
    """--max bounds what is drawn, in the order it happened, and says how many are left out."""
    code = "from ddtrace.trace import tracer\nfor n in range(5): tracer.trace('job', resource=f'r{n}').finish()\n"
    done = asynctrace("run", "--max", "2", "--", sys.executable, "-c", code)
    assert re.findall(r"^(r\d)  ", done.stdout, re.MULTILINE) == ["r3", "r4"]
    assert "3 older traces not shown" in done.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
def test_run_has_the_exit_code_of_its_command(code: str, expected: int) -> None:
    """`run` exits as its command did, 128 + n for signal n; without a trace it says so."""
    done = asynctrace("run", "--", sys.executable, "-c", code)
    assert done.returncode == expected
    assert "no trace arrived" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_forwards_signals(number: int) -> None:
    """A signal to `run` reaches the command, which may end as it likes; its traces are drawn."""
    code = (
        "import signal, time\nfrom ddtrace.trace import tracer\n"
        f"def stop(*_):\n    raise SystemExit(5)\nsignal.signal({int(number)}, stop)\n"
        "with tracer.trace('job', service='shop'):\n    print('ready', flush=True)\n    time.sleep(30)\n"
    )
    command = [sys.executable, "-m", "asynctrace", "run", "--", sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=15)
    assert process.returncode == 5
    assert "1 span, 1 service (shop)" in last_line(out)


def test_the_environment_of_a_command() -> None:
    """The URL is ours, what would send past it is gone, and the user's own pace is kept."""
    given = {
        "DD_TRACE_AGENT_URL": "x",
        "DD_AGENTLESS_ENABLED": "1",
        "DD_TRACE_WRITER_INTERVAL_SECONDS": "3",
        "A": "b",
    }
    assert agent_environment("http://127.0.0.1:1", given) == {
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:1",
        "DD_TRACE_WRITER_INTERVAL_SECONDS": "3",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "A": "b",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_view_lists_traces_and_ends_cleanly(tmp_path: Path, number: int) -> None:
    """`view` says where it listens, lists a trace when it is complete, and ends with 0."""
    port_file = tmp_path / "port"
    command = [
        sys.executable,
        "-m",
        "asynctrace",
        "view",
        "--tail",
        "--port",
        "0",
        "--port-file",
        str(port_file),
    ]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3].rstrip(".")
        assert url == f"http://127.0.0.1:{port_file.read_text().strip()}"
        lines = iter(process.stdout.readline, "")
        assert f"    DD_TRACE_AGENT_URL={url}\n" in (next(lines) for _ in range(3))
        subprocess.run(
            [sys.executable, "-c", TRACED], env=environment(**agent_environment(url)), check=True, timeout=15
        )
        listed = next(line for line in lines if "nightly" in line)
        assert re.match(r"[0-9a-f]{32}  nightly +\S+ \S+  1 span  1 service \(shop\)$", listed)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def first_lines(process: "subprocess.Popen[str]", last: str) -> list[str]:
    """What a command prints until a line that begins so."""
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith(last)):
        lines.append(process.stdout.readline())
        assert lines[-1], "ended"
    return lines


def test_view_tells_every_door(tmp_path: Path) -> None:
    """The addresses to set, for Datadog's tracers, by TCP and socket, and OpenTelemetry's; and where it forwards to."""
    path = tmp_path / "apm.socket"
    options = ["--port", "0", "--otlp-port", "0", "--socket", str(path), "--forward", "http://127.0.0.1:9"]
    command = [sys.executable, "-m", "asynctrace", "view", *options]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        told = "".join(first_lines(process, "asynctrace show last"))
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    url, otlp = (
        re.findall(r"http://127\.0\.0\.1:\d{4,}", told)[0],
        re.findall(r"OTLP_ENDPOINT=(\S+)", told)[0],
    )
    assert f"    DD_TRACE_AGENT_URL={url}\n" in told
    assert f"    DD_TRACE_AGENT_URL=unix://{path}\n" in told
    assert otlp != url
    assert "goes on to http://127.0.0.1:9 as well" in told
    assert not path.exists()


def test_a_taken_port_is_no_obstacle_unless_it_was_asked_for() -> None:
    """Without --port, `view` says who has 8126 and takes a free one; so does 4318."""
    ports = {8126: "", 4318: ""}
    with ExitStack() as held:
        for port in ports:
            try:
                held.enter_context(closing(socket.create_server(("127.0.0.1", port))))
            except OSError:  # somebody here has it: as good
                continue
        command = [sys.executable, "-m", "asynctrace", "view", "--no-browser"]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        ) as process:
            told = "".join(first_lines(process, "asynctrace show last"))
            process.terminate()
            _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert re.search(r"^asynctrace: port 8126 is taken by .+; taking a free one$", errors, re.MULTILINE)
    assert re.search(
        r"^asynctrace: port 4318 is taken; OpenTelemetry's spans go to http://", errors, re.MULTILINE
    )
    assert "listens at http://127.0.0.1:8126." not in told


def test_a_viewer_beside_gets_what_run_runs(agent: AgentThread) -> None:
    """Where `view` runs, the traces of `run` are in its page as well, and their addresses are told."""
    done = asynctrace("run", "--", sys.executable, "-c", TRACED, DD_TRACE_AGENT_URL=agent.url)
    assert (done.returncode, done.stderr) == (0, "")
    (address, trace_id) = re.findall(rf"^({agent.url}/#/t/([0-9a-f]{{32}}))$", done.stdout, re.MULTILINE)[0]
    assert agent.store.find(trace_id).services == ["shop"]
    assert last_line(done.stdout).startswith(f"trace {trace_id}:")
    assert address


def test_view_says_who_has_the_port(agent: AgentThread) -> None:
    """An explicit port that is taken is an error with the name of its holder."""
    done = asynctrace("view", "--port", str(agent.port))
    assert done.returncode == 1
    assert re.search(
        rf"port {agent.port} is taken by asynctrace \S+( \(.+, pid \d+\))? \(--port 0 takes a free one\)",
        done.stderr,
    )
