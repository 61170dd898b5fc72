"""What is looked for, and how: the steps from a server that is there to one that we start."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demos.services.probes import ProbeError, redacted
from demos.services.process import Recipe, Server, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

Found = tuple[Recipe, str]
"""How to make a private server, and where its programs come from, for people."""


class ServiceUnavailable(RuntimeError):  # noqa: N818 - it says what is the matter
    """No server was found and none could be started; the message names every way out."""


@dataclass
class Service:
    """A server to use: its `url`, and `how` we came by it. Close it, or use it as a context manager.

    A private one can be killed, stopped and restarted, always on the same port with the same data.
    """

    url: str
    how: str
    server: Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def private(self) -> bool:
        """Whether it is ours alone."""
        return self.server is not None

    def close(self) -> None:
        """Ends a private server and removes its folder; leaves everybody else's alone."""
        if self.server:
            self.server.close()

    def kill(self) -> None:
        """SIGKILL to the private server and all its processes."""
        self._own().kill()

    def stop(self) -> None:
        """An orderly shutdown of the private server."""
        self._own().stop()

    def restart(self) -> None:
        """Starts the private server again, stopping it first where it runs; back when a login works."""
        self._own().restart()

    def _own(self) -> Server:
        if self.server is None:
            raise ServiceUnavailable(f"{self.how}: not ours to stop or start. Ask for one with private=True.")
        return self.server


def hidden_steps(hide: Iterable[str], private: bool | None = None) -> set[str]:
    """The steps to leave out, as the arguments or the environment say."""
    if private is None:
        private = os.environ.get("ASYNCTRACE_PRIVATE", "0") not in ("", "0")
    named = os.environ.get("ASYNCTRACE_SERVICES_HIDE", "").replace(" ", "").split(",")
    return {*hide, *named, *(("env", "local") if private else ())}


@dataclass
class Search:
    """One walk through the steps for one service, remembering why each of them did not do."""

    name: str
    advice: str
    hidden: set[str]
    tried: list[str] = field(default_factory=list)

    def from_env(self, variable: str, login: Callable[[str], None]) -> Service | None:
        """The one the environment names, if it does; ServiceUnavailable if that one does not let us in."""
        url = os.environ.get(variable)
        if not url or "env" in self.hidden:
            return None
        try:
            login(url)
        except ProbeError as error:
            raise ServiceUnavailable(
                f"{variable}={redacted(url)} does not let us in: {error}\n"
                f"Correct it, or unset it to have a {self.name} found or started here."
            ) from error
        return Service(url, f"from {variable}")

    def local(self, url: str, login: Callable[[str], None]) -> Service | None:
        """The one at the usual port, if it lets us in."""
        if "local" in self.hidden:
            return None
        where = url.rpartition("@")[2].partition("/")[0]
        try:
            login(url)
        except ProbeError as error:
            self.tried.append(f"{where}: {error}")
            return None
        return Service(url, f"running on {where}")

    def start(self, makers: dict[str, Callable[[], Iterator[Found]]]) -> Service:
        """A private one from the first step that has one, or ServiceUnavailable."""
        for step, make in makers.items():
            if step not in self.hidden and (service := self._started(step, make)):
                return service
        tried = "\n".join(f"  {line}" for line in self.tried) or "  every step is hidden"
        raise ServiceUnavailable(f"no {self.name} here. Tried:\n{tried}\n{self.advice}")

    def _started(self, step: str, make: Callable[[], Iterator[Found]]) -> Service | None:
        begin, before = time.monotonic(), len(self.tried)
        try:
            for recipe, source in make():
                server = self._start(recipe, source)
                if server:
                    seconds = time.monotonic() - begin
                    return Service(
                        recipe.url(), f"private, from {source}, started in {seconds:.1f} s", server
                    )
        except StartError as error:
            self.tried.append(f"{step}: {error}")
        if len(self.tried) == before:
            self.tried.append(f"{step}: not there")
        return None

    def _start(self, recipe: Recipe, source: str) -> Server | None:
        try:
            return Server(recipe)
        except (StartError, OSError) as error:
            self.tried.append(f"{source}: {error}")
            return None
