"""What the project needs and whether it is here, without any help from outside the standard library."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from demos.bootstrap import requirements
from demos.bootstrap.requirements import (
    ROOT,
    applies,
    fingerprint,
    installed_from_here,
    meets,
    needed,
    satisfied,
    tables,
    unmet,
)

TEXT = (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")
def test_our_reader_agrees_with_tomllib() -> None:
    """Every dependency list of pyproject.toml is read as a real TOML reader reads it."""
    tomllib = importlib.import_module("tomllib")  # by name: mypy checks for 3.10, which has none

    project: dict[str, Any] = tomllib.loads(TEXT)["project"]
    ours = tables(TEXT)
    assert ours["project"]["dependencies"] == project["dependencies"]
    assert ours["project.optional-dependencies"] == project["optional-dependencies"]


def test_extras_of_our_own_are_followed() -> None:
    """`test` asks for `all`, `all` for every integration, and what they name is needed, once."""
    extras, names = needed("test", TEXT)
    assert {"test", "all", "aiohttp", "asyncpg"} <= extras
    assert any(name.startswith("ddtrace") for name in names)
    assert any(name.startswith("pytest-asyncio") for name in names)
    assert not any(name.startswith("asynctrace") for name in names)


@pytest.mark.parametrize(
    ("version", "rule", "expected"),
    [
        ("4.10.1", ">=4.10", True),
        ("4.9", ">=4.10", False),
        ("4.10rc1", ">=4.10", False),
        ("5", "<5", False),
        ("5.0rc1", "<5", False),
        ("4.99", "<5", True),
        ("5.0.0", "<=5", True),
        ("5.1", ">5", True),
        ("1.4", "==1.4.0", True),
        ("1.4", "!=1.4", False),
        ("1.4.7", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("1.5", "~=1.4", True),
        ("1.4.post1", ">=1.4", True),
    ],
)
def test_versions_compare_as_numbers(version: str, rule: str, expected: bool) -> None:
    """Part by part, and a pre-release is before its release without being below it as a limit."""
    assert meets(version, rule) is expected


def test_markers_choose() -> None:
    """A requirement for another platform or Python is none here; a marker we cannot read counts."""
    assert applies(f"sys_platform == '{sys.platform}'")
    assert not applies(f"sys_platform != '{sys.platform}'")
    assert applies("python_version >= '3.10' and sys_platform != 'nowhere'")
    assert applies("python_version < '3.9' or python_version > '3.9'")
    assert applies("extra == 'what'")
    assert satisfied("no-such-thing; sys_platform == 'nowhere'")


def test_what_is_here_satisfies_and_what_is_not_does_not() -> None:
    """Name, version and a finished install count; what we cannot read counts as missing."""
    version = metadata.version("pytest")
    assert satisfied(f"pytest=={version}")
    assert satisfied("pytest[dev] >= 8.2")
    assert unmet(["pytest<1", "no-such-thing", "pytest", "pytest @ file:///x"]) == [
        "no-such-thing",
        "pytest @ file:///x",
        "pytest<1",
    ]


def test_an_install_that_was_cut_short_does_not_satisfy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip writes RECORD last: a distribution without it is half there."""
    info = tmp_path / "halfway-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not satisfied("halfway")
    (info / "RECORD").write_text("halfway.py,,\n")
    assert satisfied("halfway")


def test_the_project_counts_only_where_it_is_installed_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of another checkout would run that one's code as soon as the folder changes."""
    monkeypatch.setattr(requirements, "ROOT", Path("/somewhere/else"))
    assert not installed_from_here()
    monkeypatch.setattr(requirements, "PROJECT", "no-such-thing")
    assert not installed_from_here()


def test_the_fingerprint_follows_what_matters_and_nothing_else() -> None:
    """Dependencies, extras, scripts, Python and the folder do; the settings of tools do not."""
    before = fingerprint("test", TEXT, "3.12.1")
    assert fingerprint("test", TEXT.replace("line-length = ", "line-length = 1"), "3.12.1") == before
    assert fingerprint("test", TEXT.replace("pytest>=8.2", "pytest>=8.3"), "3.12.1") != before
    assert (
        fingerprint("test", TEXT.replace("asynctrace.cli:main", "asynctrace.cli:other"), "3.12.1") != before
    )
    assert fingerprint("all", TEXT.replace("pytest>=8.2", "pytest>=8.3"), "3.12.1") == fingerprint(
        "all", TEXT, "3.12.1"
    )
    assert fingerprint("test", TEXT, "3.12.2") != before
