"""nginx: where its program is found, and how a private instance is made of it."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from demos.services.probes import http_probe
from demos.services.process import Command, Recipe, free_port, reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin"  # Debian's is not on everybody's PATH
PROBE = "/is-nginx-up"  # which it answers itself
CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream service {{ server {upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location = {probe} {{ return 204; }}
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Program:
    """nginx and, where they are not in the usual places, the folders of its libraries."""

    path: Path
    libraries: tuple[Path, ...] = ()


class Nginx(Recipe):
    """The recipe of a private nginx in front of one service, the `upstream` with this URL."""

    name = "nginx"
    stop_signal = signal.SIGQUIT  # what is under way is finished

    def __init__(self, program: Program, upstream: str) -> None:
        self.program = program
        self.upstream = urlsplit(upstream).netloc
        self.port = 0

    def prepare(self, folder: Path) -> None:
        """Nothing: all of the configuration has to wait for the port."""

    def choose_ports(self, folder: Path) -> None:
        """One, written into the configuration."""
        self.port = free_port()
        text = CONFIGURATION.format(folder=folder, upstream=self.upstream, port=self.port, probe=PROBE)
        (folder / "nginx.conf").write_text(text)

    def commands(self, folder: Path) -> Iterator[Command]:
        """One program, in the foreground."""
        argv = [str(self.program.path), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        libraries = ":".join(map(str, self.program.libraries))
        yield Command(argv, {"LD_LIBRARY_PATH": libraries} if libraries else {})

    def url(self) -> str:
        """Where requests for the service go."""
        return f"http://127.0.0.1:{self.port}"

    def probe(self, timeout: float) -> None:
        """A request that nginx answers itself."""
        http_probe(self.url() + PROBE, "nginx", timeout)


def installed() -> Iterator[Program]:
    """The installed program, if the servers' user can run it."""
    found = shutil.which("nginx") or shutil.which("nginx", path=PATH)
    if found and reachable(Path(found)):
        yield Program(Path(found))
