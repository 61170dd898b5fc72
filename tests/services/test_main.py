"""`python3 -m demos.services`: shows both servers, or runs a command with them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.services.helpers import ROOT

if TYPE_CHECKING:
    from demos.services import Service


@pytest.fixture
def urls(postgres: Service, rabbitmq: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_POSTGRES_URL", postgres.url)
    monkeypatch.setenv("ASYNCTRACE_AMQP_URL", rabbitmq.url)
    monkeypatch.delenv("ASYNCTRACE_PRIVATE", raising=False)
    monkeypatch.delenv("ASYNCTRACE_SERVICES_HIDE", raising=False)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demos.services", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("urls")
def test_it_shows_both_and_how(postgres: Service, rabbitmq: Service) -> None:
    """Lines that a shell can read: variable, URL, and how we came by it as a comment."""
    done = run()
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"ASYNCTRACE_POSTGRES_URL={postgres.url}  # from ASYNCTRACE_POSTGRES_URL",
        f"ASYNCTRACE_AMQP_URL={rabbitmq.url}  # from ASYNCTRACE_AMQP_URL",
    ]


@pytest.mark.usefixtures("urls")
def test_it_runs_a_command_with_both(postgres: Service, rabbitmq: Service) -> None:
    """The command finds both URLs in its environment; its output and its exit code are ours."""
    names = "ASYNCTRACE_POSTGRES_URL", "ASYNCTRACE_AMQP_URL"
    show = f"import os; print(*map(os.environ.get, {names})); raise SystemExit(7)"
    done = run("--", sys.executable, "-c", show)
    assert (done.returncode, done.stdout.split()) == (7, [postgres.url, rabbitmq.url])


@pytest.mark.usefixtures("urls")
def test_a_command_that_is_not_there_is_said() -> None:
    """As a shell does: exit code 127, and which file."""
    done = run("--", "no-such-command")
    assert done.returncode == 127
    assert "no-such-command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("urls")
def test_no_service_is_a_message_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback for what the user can mend."""
    monkeypatch.setenv("ASYNCTRACE_SERVICES_HIDE", "env,local,installed,wheel,debian")
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no PostgreSQL here.")


def test_other_arguments_show_the_usage() -> None:
    """Exit code 2, as command lines do."""
    done = run("--help")
    assert done.returncode == 2
    assert "-- CMD" in done.stdout
