"""SQL without its literals, for where it leaves the process, or is shown, and no Datadog agent has obfuscated it.

The lexer is sqlglot's (MIT, no dependencies): of those that are well kept the one that has PostgreSQL's rules for where
a string ends: backslashes, dollar quotes, nested comments. It is loaded when the first statement comes.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST = 5_000
"""Characters: of a longer statement only the command is left. Datadog, too, keeps so many; to read them takes ms."""

_REPEATED = (re.compile(r"\?(?:\s*,\s*\?)+"), "?"), (re.compile(r"\(\?\)(?:\s*,\s*\(\?\))+"), "(?)")
_COMMAND = re.compile(r"\s*([A-Za-z]{1,20})\b")


def obfuscated(sql: str) -> str:
    r"""The statement with `?` for each string and number, lists of them as one, and without comments. Never raises.

    Placeholders stay. Of what is no SQL, or can't be read, the command is left.

    Example:
        >>> obfuscated("SELECT * FROM tea -- nice\n WHERE kind = 'green' AND id IN (1, 2) AND price < $1")
        'SELECT * FROM tea WHERE kind = ? AND id IN (?) AND price < $1'
    """
    return _lexed(sql) if len(sql) <= LONGEST else _command(sql)


@functools.lru_cache(maxsize=1000)
def _lexed(sql: str) -> str:
    try:
        shown = "".join(_pieces(sql))
    except Exception:  # no lexer installed, a string that does not end, ...
        return _command(sql)
    for pattern, one in _REPEATED:
        shown = pattern.sub(one, shown)
    return shown


def _command(sql: str) -> str:
    found = _COMMAND.match(sql)
    return f"{found[1].upper()} ?" if found else "?"


def _pieces(sql: str) -> Iterator[str]:
    """The tokens' text; between them there is nothing but blanks and comments."""
    tokens, kinds, literals = _lexer()
    end, kind = 0, None
    for token in tokens(sql):
        apart, before, kind = token.start > end, kind, token.token_type
        if end and kind is kinds.STRING and token.text == (rest := sql[end : token.end + 1].strip()):
            yield " "  # it is not quoted, but all that follows SAVEPOINT, EXPLAIN, CALL and such
            yield from _pieces(rest)
        elif not apart and before is kinds.NUMBER and kind is kinds.VAR:  # the rest of a number: 1_000
            kind = before
        else:
            if apart and end:
                yield " "
            placeholder = not apart and before is kinds.PARAMETER  # $1
            yield "?" if kind in literals and not placeholder else sql[token.start : token.end + 1]
        end = token.end + 1


@functools.cache
def _lexer() -> tuple[Callable[[str], Any], Any, frozenset[Any]]:
    """The tokens of a text, as sqlglot sees them; the kinds there are of them, and those that are literals."""
    from sqlglot import TokenType
    from sqlglot.dialects.postgres import Postgres

    literals = {kind for kind in TokenType if kind.name.endswith("STRING")} | {TokenType.NUMBER}
    return lambda sql: Postgres().tokenize(sql), TokenType, frozenset(literals)
