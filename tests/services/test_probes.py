"""Whether a login works: who is let in, who is refused and why, and who is no such server at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from demos.services import postgres
from demos.services.probes import ProbeError, amqp_login, postgres_login, redacted
from tests.services.helpers import listener, port_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.services import Service

PROBES = [
    pytest.param(postgres_login, "postgresql://postgres@127.0.0.1:{}/postgres", id="postgres"),
    pytest.param(amqp_login, "amqp://guest:guest@127.0.0.1:{}/", id="amqp"),
]
METHODS = ("scram-sha-256", "md5", "password")
GARBAGE = [
    pytest.param(b"", id="closes"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="http"),
    pytest.param(b"AMQP\0\0\x09\x01" + b"\0" * 20, id="other-version"),
    pytest.param(b"\xff" * 64, id="ones"),
    pytest.param(b"\0" * 64, id="zeros"),
    pytest.param(b"R\0\0\0\x08\0\0\0\x63" + b"Z\0\0\0\0", id="unknown-authentication"),
    pytest.param(b"\1\0\0\0\0\0\4\0\x0a\0\x0a\xce" * 3, id="start-again"),
]


@pytest.mark.parametrize(("probe", "url"), PROBES)
@pytest.mark.parametrize("answer", GARBAGE)
def test_a_listener_that_is_no_such_server_is_refused(
    probe: Callable[[str], None], url: str, answer: bytes
) -> None:
    """A port that answers something else is not a server of this kind."""
    with listener(answer) as port, pytest.raises(ProbeError):
        probe(url.format(port))


@pytest.mark.parametrize(("probe", "url"), PROBES)
def test_a_listener_that_hangs_is_refused_in_time(probe: Callable[[str, float], None], url: str) -> None:
    """A port that accepts and stays silent costs the timeout, not more."""
    with listener(None) as port:
        begin = time.monotonic()
        with pytest.raises(ProbeError, match="time"):
            probe(url.format(port), 0.2)
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(("probe", "url"), PROBES)
def test_a_closed_port_is_refused(probe: Callable[[str], None], url: str) -> None:
    """Nobody there: the reason says so."""
    with listener(None) as port:
        pass
    with pytest.raises(ProbeError, match="refused"):
        probe(url.format(port))


@pytest.mark.parametrize(("probe", "url"), PROBES)
def test_a_url_of_another_kind_is_refused(probe: Callable[[str], None], url: str) -> None:
    """A URL with the wrong scheme, or one that is none, is told apart from a server that is down."""
    for wrong in ("http://127.0.0.1/", "127.0.0.1:5432", url.format("port"), ""):
        with pytest.raises(ProbeError, match="not a URL"):
            probe(wrong)


def test_a_wrong_amqp_password_is_refused_with_the_brokers_reason(rabbitmq: Service) -> None:
    """The broker's own words are the reason."""
    with pytest.raises(ProbeError, match="ACCESS_REFUSED"):
        amqp_login(rabbitmq.url.replace(":guest@", ":wrong@"))


def test_an_amqp_virtual_host_that_is_not_there_is_refused(rabbitmq: Service) -> None:
    """A login without its virtual host is of no use to a client."""
    with pytest.raises(ProbeError, match="nowhere"):
        amqp_login(rabbitmq.url.rstrip("/") + "/nowhere")


def test_a_postgres_database_that_is_not_there_is_refused(postgres: Service) -> None:
    """A login without its database is of no use to a client."""
    with pytest.raises(ProbeError, match="nowhere"):
        postgres_login(postgres.url.rpartition("/")[0] + "/nowhere")


async def test_every_kind_of_postgres_password_is_checked() -> None:
    """SCRAM, MD5 and clear text: the right password is let in, a wrong one and none are not."""
    with postgres(private=True) as service:
        database = await asyncpg.connect(service.url)
        try:
            for method in METHODS:
                encryption = "md5" if method == "md5" else "scram-sha-256"
                await database.execute(f"SET password_encryption = '{encryption}'")
                await database.execute(f"CREATE ROLE \"{method}\" LOGIN PASSWORD 'p@ss:word'")
        finally:
            await database.close()
        assert service.server
        rules = ["host all postgres 127.0.0.1/32 trust"]
        rules += [f"host all {method} 127.0.0.1/32 {method}" for method in METHODS]
        (service.server.folder / "data" / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        service.restart()
        for method in METHODS:
            url = f"postgresql://{method}:{{}}@127.0.0.1:{port_of(service)}/postgres"
            postgres_login(url.format("p%40ss%3Aword"))
            with pytest.raises(ProbeError, match="password authentication failed"):
                postgres_login(url.format("wrong"))
            with pytest.raises(ProbeError, match="a password is needed"):
                postgres_login(url.replace(":{}", ""))


def test_a_message_never_shows_a_password() -> None:
    """The URL in a message has stars for its password."""
    assert redacted("amqp://me:s3cret@host/") == "amqp://me:***@host/"
    assert redacted("amqp://host/") == "amqp://host/"
