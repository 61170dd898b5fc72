"""Who has a port, and sockets that were left behind: what is needed to say why listening failed."""

import errno
import socket
import stat
from contextlib import suppress
from pathlib import Path

from asynctrace.agent.client import identify

_LISTEN = "0A"  # in /proc/net/tcp, https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html


def who_holds(url: str, port: int) -> str:
    """What answers at an address, in a few words, and its process where that can be seen (Linux, the user's own)."""
    process = _process_at(port)
    answer = identify(url)
    return f"{answer} ({process})" if process else answer


def clear_socket(path: str) -> None:
    """Removes the socket file of a program that is gone.

    Raises:
        OSError: somebody listens there, or it is no socket.
    """
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something else", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            Path(path).unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "somebody listens there", path)


def _process_at(port: int) -> str:
    """`"python3, pid 4711"`, or nothing."""
    inodes = _listening(port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(link.readlink()) in wanted for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
    return ""


def _listening(port: int) -> set[str]:
    inodes = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(columns[9])
    return inodes
