"""install() and uninstall(): the integrations, whichever order they and their libraries come in."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
import threading
from typing import TYPE_CHECKING, Protocol, cast

import wrapt

from asynctrace._core.errors import (
    IntegrationError,
    MissingLibraryError,
    UnsupportedVersionError,
    UsageError,
)
from asynctrace._core.naming import is_on
from asynctrace._core.tracer import tracer

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("asynctrace")

NAMES = ("aiohttp", "asyncpg", "aio_pika", "futures", "cancellation", "logging", "structlog")
"""The integrations; each is the module of asynctrace, and the library, of that name."""

FROM_THE_START = "futures"
"""On before `install()`: part of the core."""

LIBRARIES = {"futures": "concurrent.futures", "cancellation": "asyncio"}
"""Libraries that are imported by another name."""

WITHOUT_EXTRA = frozenset({"structlog"})
"""Libraries that asynctrace has no extra for: whoever wants their integration has them."""


class Integration(Protocol):
    """What a module must have to be installed. Both functions may be called twice."""

    SUPPORTED: tuple[str, str]

    def install(self) -> None:
        """Patch the library."""

    def uninstall(self) -> None:
        """Take the patches off again."""


_lock = threading.RLock()
_wanted: set[str] = set()  # also those whose library has not been imported yet
_active: set[str] = set()
_hooked: set[str] = set()
_warned: set[str] = set()


def install(*names: str) -> None:
    """Trace the libraries in use, no code touched: aiohttp (server and client), asyncpg, aio-pika.

    And note who cancels, and put trace and span ids on the lines of logging and structlog.

    Without names every library that is installed is traced, from the moment it is imported; one in an unsupported
    version is left out with one warning, and one switched off by `DD_TRACE_<NAME>_ENABLED=false` without. By name, it
    raises `MissingLibraryError`, `UnsupportedVersionError` or, for a name it does not know, `UsageError`. May be
    called twice, before or after the libraries' import. Does nothing while tracing is off.

    Example:
        >>> from asynctrace import install, uninstall
        >>> install("asyncpg")
        >>> install()
        >>> uninstall()
    """
    chosen = [_known(name) for name in names]
    if not tracer.enabled:
        return
    with _lock:
        for name in chosen:
            _wanted.add(name)
            _activate(name)
        for name in () if chosen else NAMES:
            library = LIBRARIES.get(name, name)
            if not is_on(f"DD_TRACE_{name.upper()}_ENABLED") or importlib.util.find_spec(library) is None:
                continue
            _wanted.add(name)
            if library in sys.modules:
                _activate_or_warn(name)
            elif name not in _hooked:
                _hooked.add(name)
                wrapt.register_post_import_hook(functools.partial(_imported, name), library)
                if (room := f"asynctrace.{name}") not in sys.modules:
                    wrapt.register_post_import_hook(functools.partial(_imported, name), room)


def uninstall() -> None:
    """Take every patch off again. What was opened while they were on stays traced until it is closed."""
    with _lock:
        _wanted.clear()
        for name in (*_active, FROM_THE_START):
            _active.discard(name)
            _module(name).uninstall()


def is_installed(name: str) -> bool:
    """Whether that integration's patches are on."""
    return name in _active


def _known(name: str) -> str:
    known = str(name).replace("-", "_")
    if known not in NAMES:
        raise UsageError(f"no integration {name!r}", hint=f"one of {', '.join(NAMES)}; without names: all")
    return known


def _imported(name: str, _: ModuleType) -> None:
    """The library has been imported after install(), or the module of ours that imports it."""
    ours = sys.modules.get(f"asynctrace.{name}")
    if ours is not None and not hasattr(
        ours, "uninstall"
    ):  # it does so now, and comes here when it is complete
        return
    with _lock:
        if name in _wanted and LIBRARIES.get(name, name) in sys.modules:
            _activate_or_warn(name)


def _activate_or_warn(name: str) -> None:
    try:
        _activate(name)
    except Exception as exc:
        _wanted.discard(name)
        if name not in _warned:
            _warned.add(name)
            log.warning("%s is not traced: %s", name, exc)


def _activate(name: str) -> None:
    if name in _active:
        return
    try:
        integration = _module(name)
    except ImportError as exc:
        extra = name.replace("_", "-")
        wanted = f'"asynctrace[{extra}]"' if name not in WITHOUT_EXTRA else extra
        raise MissingLibraryError(f"{extra} is not installed", hint=f"pip install {wanted}") from exc
    if name in _active:  # as it was imported
        return
    _check_version(name, integration.SUPPORTED)
    try:
        integration.install()
    except Exception as exc:
        integration.uninstall()
        raise IntegrationError(
            f"{name} could not be patched: {exc!r}", hint="please report its version"
        ) from exc
    _active.add(name)


def _module(name: str) -> Integration:
    return cast("Integration", importlib.import_module(f"asynctrace.{name}"))


def _check_version(name: str, supported: tuple[str, str]) -> None:
    lowest, below = supported
    try:
        version: object = importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return
    if not isinstance(version, str):  # vendored, a zip, broken metadata: it gets the benefit of the doubt
        return
    if not _numbers(lowest) <= _numbers(version) < _numbers(below):
        raise UnsupportedVersionError(
            f"{name} {version} is not supported, >={lowest},<{below} is",
            hint="install a version in that range",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
