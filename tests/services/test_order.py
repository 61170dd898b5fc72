"""Which server is taken: the environment's, a local one, a private one; and what is said when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from demos.services import ServiceUnavailable, _postgres, _rabbitmq, postgres, rabbitmq
from demos.services.process import StartError
from tests.services.helpers import MAKERS, listener

if TYPE_CHECKING:
    from demos.services import Service

VARIABLES = {"postgres": "ASYNCTRACE_POSTGRES_URL", "rabbitmq": "ASYNCTRACE_AMQP_URL"}
MODULES = {"postgres": _postgres, "rabbitmq": _rabbitmq}
FETCHING = ("wheel", "debian")
kinds = pytest.mark.parametrize("kind", ["postgres", "rabbitmq"])


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES.values(), "ASYNCTRACE_PRIVATE", "ASYNCTRACE_SERVICES_HIDE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(kind: str, postgres: Service, rabbitmq: Service) -> Service:
    return {"postgres": postgres, "rabbitmq": rabbitmq}[kind]


@kinds
def test_the_environments_server_comes_first(
    kind: str, server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL in the environment is used as it is given, also where a local server would do."""
    monkeypatch.setenv(VARIABLES[kind], server.url)
    found = MAKERS[kind]()
    assert (found.url, found.how) == (server.url, f"from {VARIABLES[kind]}")
    assert not found.private


@kinds
def test_a_wrong_url_in_the_environment_is_an_error(
    kind: str, server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fallback: whoever names a server wants this one. The message names it, without its password."""
    monkeypatch.setattr(MODULES[kind], "LOCAL_URL", server.url)
    with listener(None) as port:
        pass
    scheme = server.url.partition(":")[0]
    monkeypatch.setenv(VARIABLES[kind], f"{scheme}://me:s3cret@127.0.0.1:{port}/x")
    with pytest.raises(
        ServiceUnavailable, match=rf"{VARIABLES[kind]}={scheme}://me:\*\*\*@127.0.0.1:{port}"
    ) as caught:
        MAKERS[kind]()
    assert "s3cret" not in str(caught.value)


@kinds
def test_a_local_server_comes_second(kind: str, server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server at the usual port that lets us log in is used, and left alone."""
    monkeypatch.setattr(MODULES[kind], "LOCAL_URL", server.url)
    found = MAKERS[kind]()
    assert found.url == server.url
    assert found.how.startswith("running on 127.0.0.1:")
    with found, pytest.raises(ServiceUnavailable, match="not ours"):
        found.kill()


@kinds
def test_private_skips_the_environments_and_the_local_server(
    kind: str, server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by argument or by environment, a private server never is somebody else's."""
    monkeypatch.setenv(VARIABLES[kind], server.url)
    monkeypatch.setattr(MODULES[kind], "LOCAL_URL", server.url)
    monkeypatch.setattr(MODULES[kind], "installed", lambda: iter(()))
    with pytest.raises(ServiceUnavailable):
        MAKERS[kind](private=True, hide=FETCHING)
    monkeypatch.setenv("ASYNCTRACE_PRIVATE", "1")
    with pytest.raises(ServiceUnavailable):
        MAKERS[kind](hide=FETCHING)
    assert MAKERS[kind](private=False).url == server.url


@kinds
def test_steps_can_be_hidden(kind: str, server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment hides steps by name, so that each can be tried alone."""
    monkeypatch.setattr(MODULES[kind], "LOCAL_URL", server.url)
    monkeypatch.setenv("ASYNCTRACE_SERVICES_HIDE", "local, installed,wheel,debian")
    with pytest.raises(ServiceUnavailable, match="every step is hidden"):
        MAKERS[kind]()


@kinds
def test_the_error_says_what_was_tried_and_names_every_way_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variable, apt, brew, Docker, and what works without installing: one of them suits everybody."""
    with listener(b"") as port:
        url = f"{MODULES[kind].LOCAL_URL.partition('@')[0]}@127.0.0.1:{port}/postgres"
        monkeypatch.setattr(MODULES[kind], "LOCAL_URL", url)
        with pytest.raises(ServiceUnavailable) as caught:
            MAKERS[kind](hide=("installed", *FETCHING))
    message = str(caught.value)
    assert f"127.0.0.1:{port}: the server closed the connection" in message
    for way in (
        f"export {VARIABLES[kind]}=",
        "apt install",
        "brew install",
        "docker run",
        "without installing",
    ):
        assert way in message


@kinds
def test_a_server_that_does_not_start_is_told_and_the_next_step_taken(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed server that is broken is one line of the error, not its end."""

    def broken() -> NoReturn:
        raise StartError("broken beyond repair")

    monkeypatch.setattr(MODULES[kind], "installed", broken)
    with pytest.raises(ServiceUnavailable, match="installed: broken beyond repair"):
        MAKERS[kind](private=True, hide=FETCHING)


def test_both_are_found_each_on_its_own(postgres: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One service in the environment says nothing about the other."""
    monkeypatch.setenv("ASYNCTRACE_POSTGRES_URL", postgres.url)
    with pytest.raises(ServiceUnavailable, match="no RabbitMQ"):
        rabbitmq(hide=("local", "installed", *FETCHING))


def test_a_server_that_ends_instead_of_starting_has_its_say() -> None:
    """The end of the server's own log is in the error."""
    with postgres(private=True) as service:
        server = service.server
        assert server
        server.stop()
        (server.folder / "data" / "PG_VERSION").write_text("7.4\n")
        with pytest.raises(StartError, match=r"7\.4"):
            server.start()
