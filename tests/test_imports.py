"""What is loaded when, who may import whom, and that what is public is what is said to be."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asynctrace
from asynctrace import uninstall
from tests.core.process import environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(asynctrace.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(asynctrace.__path__, "asynctrace.")
    if not module.name.endswith("__main__")
)
INTEGRATIONS = ("aiohttp", "asyncpg", "aio_pika", "anyio", "futures", "cancellation", "logging", "structlog")
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


def loaded_by(statement: str) -> set[str]:
    """The modules a new process has after the statement."""
    return set(
        run(f"{statement}\nimport sys\nprint(*sys.modules)", DD_TRACE_AGENT_URL="http://127.0.0.1:9").split()
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import asynctrace` loads neither ddtrace nor any library."""
    loaded = loaded_by("import asynctrace")
    assert not {"ddtrace", "asyncio", "logging", "wrapt", "typing_extensions", *INTEGRATIONS} & loaded


def test_importing_the_package_is_quick() -> None:
    """It takes less than 20 ms; three times as long is allowed here, on a busy machine."""
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import asynctrace"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        (line,) = re.findall(r"\|\s+(\d+) \| asynctrace$", done.stderr, re.MULTILINE)
        times.append(int(line) / 1000)
    print(f"import asynctrace: {min(times):.1f} ms")
    assert min(times) < 60


@pytest.mark.parametrize("name", ["asynctrace.agent", "asynctrace.cli", "asynctrace.agent.server"])
def test_agent_and_command_line_load_no_tracer(name: str) -> None:
    """They are programs of their own: neither ddtrace nor the core."""
    loaded = loaded_by(f"import {name}")
    assert not {module for module in loaded if module.split(".")[0] == "ddtrace"}
    assert not {module for module in loaded if module.startswith("asynctrace._core")}


# -- who may import whom


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules a file imports, by full name, and whether for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = str(node.module)
            children = {f"{module}.{alias.name}" for alias in node.names} & {"asynctrace", *MODULES}
            yield from ((name, id(node) in typing_only) for name in children or {module})


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("_core/")])
def test_the_core_knows_only_ddtrace(file: str) -> None:
    """The core imports the standard library, ddtrace and itself; typing_extensions for type checkers."""
    for module, typing_only in imports(FILES[file]):
        top = module.split(".")[0]
        allowed = {"ddtrace", *sys.stdlib_module_names} | ({"typing_extensions"} if typing_only else set())
        assert module.startswith("asynctrace._core") or top in allowed, module


DDTRACE = {"ddtrace", "ddtrace.trace", "ddtrace.propagation.http"}


@pytest.mark.parametrize("file", FILES)
def test_only_public_modules_of_ddtrace(file: str) -> None:
    """`ddtrace`, `ddtrace.trace` and the propagator are all we import of it."""
    of_ddtrace = {module for module, _ in imports(FILES[file]) if module.split(".")[0] == "ddtrace"}
    assert of_ddtrace <= DDTRACE


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_integrations_do_not_know_each_other(name: str) -> None:
    """An integration imports the core, two helpers (patching, SQL) and its own library."""
    for file in (f for f in FILES if f == f"{name}.py" or f.startswith(f"{name}/")):
        for module, _ in imports(FILES[file]):
            top = module.split(".")[0]
            if top == "asynctrace":
                assert module.startswith(
                    ("asynctrace._core", "asynctrace._patching", "asynctrace._sql", f"asynctrace.{name}")
                ), module
            else:
                related = {"aio_pika": {"aiormq", "pamqp", "yarl"}, "aiohttp": {"multidict", "yarl"}}.get(
                    name, set()
                )
                assert top in {name, "wrapt", "typing_extensions", *related, *sys.stdlib_module_names}, module


# -- what is public


def test_all_is_what_there_is() -> None:
    """Every name of `__all__` is there, sorted and once; every public name is in it."""
    names = asynctrace.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(asynctrace, name) is not None
    assert set(names) == set(asynctrace._HOMES)
    assert set(names) <= set(dir(asynctrace))


def test_the_type_checkers_see_the_same_names() -> None:
    """The lazy names and those of the TYPE_CHECKING block come from the same places."""
    tree = ast.parse(FILES["__init__.py"].read_text(encoding="utf-8"))
    declared = {
        alias.name: str(node.module).removeprefix("asynctrace.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == asynctrace._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        asynctrace.unknown  # noqa: B018 - the access is the test
    assert not hasattr(asynctrace, "unknown")


@pytest.mark.parametrize("name", MODULES)
def test_all_of_a_module(name: str) -> None:
    """A module that has `__all__` has what it lists."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


def examples() -> list[Any]:
    """Every docstring with an example."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found: list[Any] = []
    for name in ("asynctrace", *MODULES):
        module = importlib.import_module(name)
        found.extend(pytest.param(test, id=test.name) for test in finder.find(module, name) if test.examples)
    return found


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("example", examples())
def test_examples_of_the_docstrings(example: doctest.DocTest) -> None:
    """What a docstring shows is what happens."""
    report: list[str] = []
    try:
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
            example, out=report.append, clear_globs=False
        )
    finally:
        uninstall()
    assert result.failed == 0, "".join(report)


def test_every_public_function_has_an_example() -> None:
    """What `asynctrace` exports shows itself at work; not exceptions, the handle, and `uninstall` (in `install`'s)."""
    for name in asynctrace.__all__:
        value = getattr(asynctrace, name)
        if name in {"ROOT", "Span", "uninstall"} or (
            isinstance(value, type) and issubclass(value, Exception)
        ):
            continue
        if name.startswith("traced_") and name != "traced_app":
            continue  # the example is the module's own, run by the tests of the integrations
        assert ">>> " in str(value.__doc__), name
