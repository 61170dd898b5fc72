"""RabbitMQ: where its programs are found, and how a private instance is made of them."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.services.probes import amqp_login
from demos.services.process import Command, Recipe, StartError, free_port, reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL_URL = "amqp://guest:guest@127.0.0.1:5672/"
FOLDERS = (
    "/usr/lib/rabbitmq/bin",  # Debian, Fedora: what /usr/sbin/rabbitmq-server wraps in a change of user
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq/sbin",  # the official image
)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin:/opt/erlang/bin"
CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
num_acceptors.tcp = 2
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 512MB
log.console = true
log.console.level = warning
log.file = false
"""


@dataclass(frozen=True)
class Programs:
    """Folders of RabbitMQ's scripts and, where they are not in the usual place, of Erlang and its libraries."""

    scripts: Path
    erlang: Path | None = None
    libraries: Path | None = None

    @property
    def path(self) -> str:
        """The PATH that finds both."""
        return ":".join(str(folder) for folder in (self.scripts, self.erlang, SYSTEM_PATH) if folder)


class RabbitMQ(Recipe):
    """The recipe of a private RabbitMQ: its own node name, ports, cookie and name server (epmd)."""

    name = "rabbitmq"
    stop_signal = signal.SIGTERM

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.port = self.epmd_port = self.distribution_port = 0

    def prepare(self, folder: Path) -> None:
        """Writes the configuration; nothing of the machine's own RabbitMQ is read."""
        (folder / "advanced.config").write_text("[].\n")
        (folder / "enabled_plugins").write_text("[].\n")

    def choose_ports(self, folder: Path) -> None:
        """Three of them: clients', Erlang's own and the name server's."""
        self.port, self.epmd_port, self.distribution_port = free_port(), free_port(), free_port()
        (folder / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port))

    def commands(self, folder: Path) -> Iterator[Command]:
        """The name server in the foreground, so that Erlang starts no daemon of its own; then the broker."""
        environment = self._environment(folder)
        epmd = shutil.which("epmd", path=self.programs.path)
        if epmd is None:
            raise StartError("Erlang's epmd is not there")
        port = str(self.epmd_port)
        yield Command([epmd, "-address", "127.0.0.1", "-port", port], environment, port=self.epmd_port)
        yield Command([str(self.programs.scripts / "rabbitmq-server")], environment)

    def url(self) -> str:
        """The URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def probe(self, timeout: float) -> None:
        """A whole login: the port opens before the virtual host does."""
        amqp_login(self.url(), timeout)

    def _environment(self, folder: Path) -> dict[str, str]:
        environment = {
            "PATH": self.programs.path,
            "HOME": str(folder),  # the cookie
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"asynctrace{self.port}@127.0.0.1",
            "RABBITMQ_USE_LONGNAME": "true",  # an address is a long name, and needs no name look-up
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log.d",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The start script then becomes the broker instead of waiting for it: one process, one signal.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        if self.programs.libraries:
            environment["LD_LIBRARY_PATH"] = str(self.programs.libraries)
        return environment


def installed() -> Iterator[Programs]:
    """Installed brokers whose scripts the servers' user can run."""
    for folder in map(Path, FOLDERS):
        if reachable(folder / "rabbitmq-server"):
            programs = Programs(folder)
            if shutil.which("erl", path=programs.path):
                yield programs
