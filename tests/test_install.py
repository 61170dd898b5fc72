"""install() and uninstall(): which libraries are traced, when, and what is said of the others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import (
    IntegrationError,
    MissingLibraryError,
    UnsupportedVersionError,
    UsageError,
    _integrations,
    install,
    uninstall,
)
from asynctrace._integrations import NAMES, is_installed
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sink import Sink

    Modules = dict[str, "Fake"]


class Fake(types.ModuleType):
    """An integration that counts."""

    SUPPORTED = ("1.2", "3")

    def __init__(self, name: str, events: list[str]) -> None:
        super().__init__(f"asynctrace.{name}")
        self.events, self.name, self.broken = events, name, False

    def install(self) -> None:
        self.events.append(f"+{self.name}")
        if self.broken:
            raise AttributeError("no such door")

    def uninstall(self) -> None:
        self.events.append(f"-{self.name}")


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> Iterator[Modules]:
    """Integrations and libraries of every name, loaded, in a supported version."""
    fakes = {name: Fake(name, events) for name in NAMES}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, f"asynctrace.{name}", fake)
        if name not in sys.stdlib_module_names:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.delenv(f"DD_TRACE_{name.upper()}_ENABLED", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    for state in ("_wanted", "_active", "_warned"):
        monkeypatch.setattr(_integrations, state, set())
    monkeypatch.setattr(_integrations, "_hooked", set(NAMES))  # their import hooks are for life
    yield fakes
    uninstall()


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the version every library says it has."""
    return lambda value: monkeypatch.setattr(importlib.metadata, "version", lambda _: value)


def test_all_that_are_in_use(modules: Modules, events: list[str]) -> None:
    """Without names, every library that is loaded, once however often it is called."""
    install()
    install()
    assert events == [f"+{name}" for name in NAMES]
    assert all(map(is_installed, NAMES))


def test_uninstall_takes_off_what_was_put_on(modules: Modules, events: list[str]) -> None:
    """Each once; afterwards they can be installed again."""
    install("aiohttp", "asyncpg")
    uninstall()
    uninstall()
    once = [event for event in events if event != "-futures"]  # part of the core, on before
    assert sorted(once) == ["+aiohttp", "+asyncpg", "-aiohttp", "-asyncpg"]
    assert not any(map(is_installed, NAMES))
    install("aiohttp")
    assert events[-1] == "+aiohttp"


def test_by_name(modules: Modules, events: list[str]) -> None:
    """Only that one; written as the package index writes it, too."""
    install("aio-pika")
    install("aio_pika")
    assert events == ["+aio_pika"]


@pytest.mark.parametrize("name", ["redis", "", "aiohttp.client", "AIOHTTP", None, 7])
def test_an_unknown_name(name: Any, modules: Modules, events: list[str]) -> None:
    """`UsageError` that lists the known ones; nothing is installed, not even the others of the call."""
    with pytest.raises(UsageError, match="aiohttp, asyncpg, aio_pika"):
        install("aiohttp", name)
    assert events == []


@pytest.mark.parametrize("supported", ["1.2", "1.2.0", "1.10", "2.99.99", "1.2.1rc1", "2.0+local.9"])
def test_supported_versions(supported: str, modules: Modules, version: Callable[[str], None]) -> None:
    """From the first on, below the last; numbers are numbers."""
    version(supported)
    install("asyncpg")
    assert is_installed("asyncpg")


@pytest.mark.parametrize("unsupported", ["1.1.9", "0.30", "3", "3.0.0", "3.0.0a1", "4"])
def test_an_unsupported_version_by_name(
    unsupported: str, modules: Modules, events: list[str], version: Callable[[str], None]
) -> None:
    """Raises, names the version and the range, and patches nothing."""
    version(unsupported)
    with pytest.raises(UnsupportedVersionError, match=rf"asyncpg {unsupported} .*>=1\.2,<3 ") as caught:
        install("asyncpg")
    assert isinstance(caught.value, IntegrationError)
    assert caught.value.hint
    assert events == []


def test_an_unsupported_version(
    modules: Modules, events: list[str], version: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Without names it is left out, with one warning that names the range; the others are installed."""
    modules["asyncpg"].SUPPORTED = ("9", "10")
    for _ in range(3):
        install()
    assert events == [f"+{name}" for name in NAMES if name != "asyncpg"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asynctrace", logging.WARNING)
    assert "asyncpg 2.0" in record.getMessage()
    assert ">=9,<10" in record.getMessage()


def test_without_a_known_version(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is not a distribution (vendored, zipped) is given the benefit of the doubt."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    install("asyncpg")
    assert is_installed("asyncpg")


def test_with_broken_metadata(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one whose metadata names no version."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: None)
    install()
    assert is_installed("asyncpg")


def test_a_missing_library(
    modules: Modules, events: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By name it raises and says what to install; without names it is passed over in silence."""
    monkeypatch.setitem(sys.modules, "asynctrace.aio_pika", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aio_pika" else object())
    with pytest.raises(MissingLibraryError, match=r"asynctrace\[aio-pika\]") as caught:
        install("aio_pika")
    assert isinstance(caught.value, ImportError)
    install()
    assert events == [f"+{name}" for name in NAMES if name != "aio_pika"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("setting", "on"), [("false", False), ("0", False), ("true", True), ("1", True), ("True", True)]
)
def test_switched_off(
    setting: str,
    on: bool,
    modules: Modules,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`DD_TRACE_<NAME>_ENABLED` decides without names, silently; by name, the argument comes first."""
    monkeypatch.setenv("DD_TRACE_AIO_PIKA_ENABLED", setting)
    install()
    assert is_installed("aio_pika") is on
    assert is_installed("aiohttp")
    assert not caplog.records
    install("aio_pika")
    assert is_installed("aio_pika")


def test_a_library_that_cannot_be_patched(
    modules: Modules, events: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What was patched comes off again; by name it raises, without names there is one warning."""
    modules["asyncpg"].broken = True
    with pytest.raises(IntegrationError, match="no such door"):
        install("asyncpg")
    assert events == ["+asyncpg", "-asyncpg"]
    install()
    install()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert is_installed("aiohttp")
    assert not is_installed("asyncpg")


def test_a_library_that_fails_to_load(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without names, one broken library keeps neither the program nor the others from starting."""
    real = _integrations._module

    def module(name: str) -> Any:
        if name == "aiohttp":
            raise RuntimeError("broken installation")
        return real(name)

    monkeypatch.setattr(_integrations, "_module", module)
    install()
    assert is_installed("asyncpg")


# -- order: the library after install()

LATER = """
    import sys, types, importlib.metadata, logging
    from asynctrace import install, uninstall
    from asynctrace import _integrations
    events = []
    fake = types.ModuleType("asynctrace.asyncpg")
    fake.SUPPORTED = SUPPORTED
    fake.install, fake.uninstall = (lambda: events.append("+")), (lambda: events.append("-"))
    sys.modules["asynctrace.asyncpg"] = fake
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
"""


@pytest.mark.parametrize(
    ("supported", "steps", "expected"),
    [
        (("0", "9"), "install(); print(events); import asyncpg; print(events)", "[]\n['+']"),
        (("0", "9"), "import asyncpg; install(); print(events)", "['+']"),
        (("0", "9"), "install(); install(); import asyncpg; print(events)", "['+']"),
        (("0", "9"), "install(); uninstall(); import asyncpg; print(events)", "[]"),
        (("0", "9"), "install(); uninstall(); install(); import asyncpg; print(events)", "['+']"),
        (("0", "9"), "install(); import asyncpg; uninstall(); install(); print(events)", "['+', '-', '+']"),
        (("8", "9"), "install(); import asyncpg; install(); print(events)", "WARNING\n[]"),
    ],
)
def test_any_order(supported: tuple[str, str], steps: str, expected: str, sink: Sink) -> None:
    """Libraries are traced from their import on, whether it comes before or after; never what was uninstalled."""
    program = LATER.replace("SUPPORTED\n", f"{supported!r}\n") + f"    {steps}\n"
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == expected


OURS_FIRST = """
import importlib
import asynctrace
from asynctrace._integrations import is_installed

asynctrace.install()
for name in ("aiohttp", "asyncpg"):
    importlib.import_module(f"asynctrace.{name}")
    assert is_installed(name), name
"""


def test_a_library_that_our_own_module_imports(sink: Sink) -> None:
    """`install()`, then `from asynctrace.aiohttp import ...`, and aiohttp only with that: it is traced."""
    assert run(OURS_FIRST, DD_TRACE_AGENT_URL=sink.url) == ""


def test_installing_imports_no_library(sink: Sink) -> None:
    """Without names, only what the program itself loads is loaded."""
    program = "import sys; from asynctrace import install; install(); print(*sys.modules)"
    loaded_by_ddtrace = {"logging"}
    assert not (set(NAMES) - loaded_by_ddtrace) & set(run(program, DD_TRACE_AGENT_URL=sink.url).split())


def test_nothing_is_patched_while_tracing_is_off(sink: Sink) -> None:
    """Off costs nothing: the libraries stay what they are, by name, too."""
    program = """
        import asyncpg
        from asynctrace import install
        from asynctrace._integrations import is_installed
        before = dict(vars(asyncpg.protocol.Protocol))
        install(); install("asyncpg")
        print(is_installed("asyncpg"), dict(vars(asyncpg.protocol.Protocol)) == before)
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url, DD_TRACE_ENABLED="false") == "False True"


def test_the_real_ones() -> None:
    """Every integration can be installed and taken off again, here and now."""
    for name in NAMES:
        install(name)
        assert is_installed(name)
    uninstall()
    assert not any(map(is_installed, NAMES))
