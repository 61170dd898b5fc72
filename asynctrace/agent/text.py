"""Text for a terminal: made safe, measured in cells, cut to fit, coloured; and numbers with their units.

What is in a span was written by whoever sent it: nothing of it reaches the terminal before `clean`.
"""

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

NS_PER_US, NS_PER_MS, NS_PER_S = 10**3, 10**6, 10**9
_MINUTE = 60
_ONE_BYTE = 0x100
# Control, format (bidi overrides hide text), surrogate, private, unassigned; line and paragraph separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a drawing, in one of two sets."""

    full: str
    eighths: str  # bars that begin at the left edge of a cell, one to eight eighths wide
    right_half: str
    right_eighth: str
    folded: str
    tick: str
    branch: str
    last_branch: str
    stem: str
    error: str
    orphan: str
    link: str
    swatch: str
    times: str
    ellipsis: str
    micro: str


UNICODE = Glyphs(
    full="█",
    eighths="▏▎▍▌▋▊▉█",
    right_half="▐",
    right_eighth="▕",
    folded="▒",
    tick="│",
    branch="├ ",
    last_branch="└ ",
    stem="│ ",
    error="✗",
    orphan="◇",
    link="→",
    swatch="■",
    times="\N{MULTIPLICATION SIGN}",
    ellipsis="…",
    micro="µs",
)
ASCII = Glyphs(
    full="#",
    eighths="########",
    right_half="#",
    right_eighth="#",
    folded=":",
    tick="|",
    branch="|-",
    last_branch="`-",
    stem="| ",
    error="!",
    orphan="?",
    link="->",
    swatch="#",
    times="x",
    ellipsis="~",
    micro="us",
)


def glyphs_for(encoding: str | None) -> Glyphs:
    """The set of characters that a stream with this encoding can write."""
    try:
        for name in Glyphs.__slots__:
            str(getattr(UNICODE, name)).encode(encoding or "ascii")
    except (UnicodeError, LookupError):
        return ASCII
    return UNICODE


def clean(text: str) -> str:
    r"""Text on one line that does nothing to a terminal: white space becomes a blank, an escape `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    collapsed = " ".join(text.split())
    return "".join(_escaped(char) if unicodedata.category(char) in _UNSAFE else char for char in collapsed)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < _ONE_BYTE else f"\\u{code:04x}"


def cells(text: str) -> int:
    """How many columns a clean text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) == "Me":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int, ellipsis: str = UNICODE.ellipsis) -> str:
    """The text in at most `width` columns."""
    if cells(text) <= width:
        return text
    kept: list[str] = []
    room = width - len(ellipsis)
    for char in text:
        room -= _cells(char)
        if room < 0:
            break
        kept.append(char)
    return ("".join(kept) + ellipsis)[: max(0, width)]


def fit(text: str, width: int, ellipsis: str = UNICODE.ellipsis) -> str:
    """The text in exactly `width` columns."""
    short = cut(text, width, ellipsis)
    return short + " " * (width - cells(short))


def duration(nanoseconds: int, micro: str = UNICODE.micro) -> str:
    """A duration in three digits and a unit: `"870 µs"`, `"41.9 ms"`, `"1.25 s"`, `"3m 20s"`."""
    if nanoseconds < 0:
        return "-" + duration(-nanoseconds, micro)
    if nanoseconds < NS_PER_US:
        return f"{nanoseconds} ns"
    # 999.5 of a unit would be written as 1000 of it: the next unit begins there.
    for unit, name in ((NS_PER_US, micro), (NS_PER_MS, "ms"), (NS_PER_S, "s")):
        value = nanoseconds / unit
        if value < (_MINUTE if name == "s" else 999.5):
            return f"{_three_digits(value)} {name}"
    minutes, seconds = divmod(round(nanoseconds / NS_PER_S), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"


def _three_digits(value: float) -> str:
    return next(
        (text for places in (2, 1) if len(text := f"{value:.{places}f}") <= len("0.00")), f"{value:.0f}"
    )


def plural(count: int, noun: str) -> str:
    """A count with its noun: `"1 span"`, `"2 spans"`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# Colours of the terminal's own theme, so that they can be read on it; red is for errors.
_SERVICE_COLORS = ("36", "33", "35", "32", "34", "96", "93", "95", "92", "94")


@dataclass(slots=True)
class Paint:
    """Colours, or the same calls without any."""

    enabled: bool
    _services: dict[str, str] = field(default_factory=dict)

    def know(self, services: list[str]) -> None:
        """Gives each service its colour, in the order of the list."""
        for index, name in enumerate(services):
            self._services.setdefault(name, _SERVICE_COLORS[index % len(_SERVICE_COLORS)])

    def service(self, name: str, text: str) -> str:
        """The text in the colour of a service."""
        return self._paint(self._services.get(name, "39"), text)

    def error(self, text: str) -> str:
        """The text as an error."""
        return self._paint("31", text)

    def bold(self, text: str) -> str:
        """The text as a title."""
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        """The text as something beside the point."""
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled and text and not text.isspace() else text


def wants_color(stream: IO[str], choice: str = "auto", environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what is written to a stream.

    Args:
        stream: where it goes.
        choice: `"always"`, `"never"`, or `"auto"`: `NO_COLOR` and `FORCE_COLOR` decide when they are set
            (https://no-color.org, https://force-color.org), else whether the stream is a terminal.
        environ: the environment.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM") != "dumb" and stream.isatty()
