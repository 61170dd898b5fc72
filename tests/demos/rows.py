"""A drawing's rows, without what differs from run to run."""

from __future__ import annotations

import re


def drawings(printed: str) -> list[list[str]]:
    """What names the spans of each drawing, row by row: service, branches, name and the beginning of the resource."""
    return [
        re.findall(r"^(\w+  .*?)  +[█▐▕▏▎▍▌▋▊▉]", drawing, re.MULTILINE)
        for drawing in re.split(r"^trace .*$", printed, flags=re.MULTILINE)[:-1]
    ]
