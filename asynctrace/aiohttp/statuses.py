"""Which statuses are errors: a list of numbers and ranges, from the environment."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("asynctrace")


def statuses(said: str) -> frozenset[int]:
    """The statuses in such a list. Raises `ValueError` for another text.

    Example:
        >>> sorted(statuses("404, 500-502"))
        [404, 500, 501, 502]
    """
    found: set[int] = set()
    for part in said.split(","):
        ends = [int(end) for end in part.split("-")]
        found.update(range(max(min(ends), 100), min(max(ends), 999) + 1))
    return frozenset(found)


def error_statuses(*names: str, default: str) -> frozenset[int]:
    """What the first of these variables says that is set; with a warning the default, where that is no such list."""
    name = next((name for name in names if os.environ.get(name)), None)
    if name is not None:
        try:
            return statuses(os.environ[name])
        except ValueError:
            log.warning("%s is no list of statuses: %r; %s it is", name, os.environ[name], default)
    return statuses(default)
