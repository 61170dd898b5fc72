"""What the project needs, and whether an interpreter has it: pyproject.toml against installed metadata.

Nothing heavy is imported to find out. The reader and the version rules cover what our own pyproject.toml
uses, no more: Python 3.10 has no tomllib, a bare one no `packaging`, and what they do not understand counts
as missing, which only costs an environment.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT = "asynctrace"
ROOT = Path(__file__).resolve().parents[2]

Tables = dict[str, dict[str, list[str]]]


def tables(text: str) -> Tables:
    """The arrays of strings in a pyproject.toml, by table; written as Python writes a list."""
    found: Tables = {}
    table, lines = "", iter(text.splitlines())
    for line in lines:
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            table = header[1].strip()
        elif start := re.match(r"\s*([\w-]+)\s*=\s*(\[.*)$", line):
            source = start[2]
            while (value := _literal(source)) is None:
                source += "\n" + next(lines)
            found.setdefault(table, {})[start[1]] = value
    return found


def _literal(source: str) -> list[str] | None:
    """The list, once all of its lines are there."""
    try:
        value = ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return None
    return value if isinstance(value, list) else None


def needed(extra: str, text: str) -> tuple[set[str], set[str]]:
    """(extras, requirements): what `project[extra]` asks for, extras of our own followed to their end."""
    project = tables(text)
    optional = project.get("project.optional-dependencies", {})
    extras: set[str] = set()
    requirements = set(project.get("project", {}).get("dependencies", []))
    todo = [extra]
    while todo:
        name = todo.pop()
        if name in extras:
            continue
        extras.add(name)
        for requirement in optional[name]:
            own = re.match(rf"{PROJECT}\[([^\]]+)\]", requirement)
            if own:
                todo += [word.strip() for word in own[1].split(",")]
            else:
                requirements.add(requirement)
    return extras, requirements


def fingerprint(extra: str, text: str, python: str) -> str:
    """Changes when an environment made for `extra` must be looked at again."""
    others = re.findall(
        r"^\[(?:build-system|project\.(?:scripts|gui-scripts|entry-points[^\]]*))\]$.*?(?=^\[|\Z)|^(?:name|version|requires-python)\b.*?$",
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    parts = [sorted(needed(extra, text)[1]), others, python, str(ROOT)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def missing(extra: str, text: str) -> list[str]:
    """What the running interpreter lacks of `project[extra]`, and the project itself, installed from here."""
    lacks = [] if installed_from_here() else [f"{PROJECT} (installed from {ROOT})"]
    return lacks + unmet(needed(extra, text)[1])


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those that installed metadata does not satisfy."""
    return sorted(requirement for requirement in requirements if not satisfied(requirement))


def installed_from_here() -> bool:
    """Whether the project is installed, editable, from this very checkout."""
    try:
        origin = metadata.distribution(PROJECT).read_text("direct_url.json")
        url = json.loads(origin or "{}").get("url", "")
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return bool(url) and Path(url2pathname(urlsplit(url).path)).resolve() == ROOT


def satisfied(requirement: str) -> bool:
    """Whether what is installed meets a requirement such as `uvloop>=0.20,<1; sys_platform != 'win32'`."""
    wanted, _, marker = requirement.partition(";")
    parsed = re.fullmatch(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*((?:[<>=!~]=?.*)?)", wanted)
    if not parsed:
        return False
    if marker.strip() and not applies(marker):
        return True
    try:
        installed = metadata.distribution(parsed[1])
        # An install that was cut short has no RECORD yet: it is written last.
        if not any(installed.read_text(name) for name in ("RECORD", "INSTALLER", "installed-files.txt")):
            return False
        return all(meets(installed.version, rule.strip()) for rule in parsed[2].split(",") if rule.strip())
    except (metadata.PackageNotFoundError, ValueError):
        return False


def meets(version: str, rule: str) -> bool:
    """One comparison of a version: `>=`, `<=`, `>`, `<`, `==`, `!=` and `~=`, without wildcards."""
    match = re.fullmatch(r"(>=|<=|==|!=|~=|>|<)\s*([\w.!+-]+)", rule)
    if not match:
        raise ValueError(rule)
    operator, have, want = match[1], _key(version), _key(match[2])
    if operator == "~=":
        series = match[2].split(".")[:-1]
        return have >= want and _key(version)[0][: len(series)] == _key(".".join(series))[0][: len(series)]
    # A pre-release of the limit is not below it: 4.0rc1 has what 4 breaks.
    below = have < want and have[0] != want[0]
    return {
        ">=": have >= want,
        "<=": have <= want,
        ">": have > want,
        "<": below,
        "==": have == want,
        "!=": have != want,
    }[operator]


def _key(version: str) -> tuple[tuple[int, ...], bool]:
    """(release padded to five numbers, whether it is final): enough order for lower and upper limits."""
    match = re.match(r"v?(\d+(?:\.\d+)*)(.*)", version)
    if not match:
        raise ValueError(version)
    release = [int(part) for part in match[1].split(".")]
    early = re.match(r"[._-]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)", match[2]) is not None
    return tuple((release + [0] * 5)[:5]), not early


def applies(marker: str) -> bool:
    """An environment marker made of the few variables we use, joined by `and` or by `or`."""
    if " or " in marker:
        return any(applies(part) for part in marker.split(" or "))
    if " and " in marker:
        return all(applies(part) for part in marker.split(" and "))
    match = re.fullmatch(r"\s*(\w+)\s*([<>=!]=?)\s*['\"]([^'\"]+)['\"]\s*", marker)
    values = {"sys_platform": sys.platform, "python_version": ".".join(map(str, sys.version_info[:2]))}
    if not match or match[1] not in values:
        return True
    have, operator, want = values[match[1]], match[2], match[3]
    if match[1] == "python_version":
        return meets(have, operator + want)
    return (have == want) == (operator == "==")
