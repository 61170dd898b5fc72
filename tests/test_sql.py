"""SQL without its literals: none is left, whatever it is written like; placeholders and shape are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from asynctrace import _sql
from asynctrace._sql import LONGEST, obfuscated

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN = {
    "SELECT * FROM tea1 WHERE a = 'x' AND b = 12.5e3": "SELECT * FROM tea1 WHERE a = ? AND b = ?",
    "SELECT $1, $2::int, a->>'k'": "SELECT $1, $2::int, a->>?",
    "SELECT a FROM t WHERE id IN (1, 2,\n 3) AND b = ANY('{4}')": "SELECT a FROM t WHERE id IN (?) AND b = ANY(?)",
    "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')": "INSERT INTO t (a, b) VALUES (?)",
    "SELECT 1 /* why: 'x' /* nested */ */ -- and more": "SELECT ?",
    'SELECT "it\'s", \'x\' FROM "a1"."b2"': 'SELECT "it\'s", ? FROM "a1"."b2"',
    "SELECT -1, a-1, t.c2, .5, 1_000, 0x1F": "SELECT -?, a-?, t.c2, .?",
    "SELECT 1_000 AS a": "SELECT ? AS a",
    "COMMIT;": "COMMIT;",
    "SAVEPOINT __asyncpg_savepoint_n__;": "SAVEPOINT __asyncpg_savepoint_n__;",
    "RELEASE  SAVEPOINT x1 ; EXPLAIN SELECT 'x'": "RELEASE SAVEPOINT x1; EXPLAIN SELECT ?",
    "CALL f(1, 'x', $1)": "CALL f(?, $1)",
    "DO $$ BEGIN RAISE NOTICE 'x'; END $$": "DO ?",
    "": "",
}


@pytest.mark.parametrize("sql", SHOWN)
def test_what_is_shown(sql: str) -> None:
    """Strings and numbers are `?`, lists of them one, comments gone; names, placeholders and keywords stay."""
    assert obfuscated(sql) == SHOWN[sql]


SECRET = "xSECRETx"

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: "'" + text.replace("'", "''") + "'",
    "escaped": lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'",
    "doubled": lambda text: "e'" + text.replace("\\", "\\\\").replace("'", "''") + "'",
    "dollars": lambda text: f"$${text.replace('$', '')}$$",
    "tagged": lambda text: f"$q1_${text.replace('$', '')}$q1_$",
    "unicode": lambda text: "U&'" + text.replace("\\", "").replace("'", "''") + "'",
    "national": lambda text: "N'" + text.replace("'", "''") + "'",
    "in a comment": lambda text: "NULL /*" + text.replace("*/", "").replace("/*", "") + "*/",
    "in a line's comment": lambda text: "NULL --" + text.replace("\n", "") + "\n",
}


@given(
    st.sampled_from(
        ("SELECT a", "EXPLAIN SELECT a", "CALL tea(a", "DO", "EXECUTE p(1", "BEGIN; EXPLAIN SELECT a")
    ),
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FORMS)),
            st.text("'\"\\$-*/aE&; \n?%{}éx", max_size=8),
            st.sampled_from(",|+"),
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(deadline=None, max_examples=400)
def test_no_literal_is_left(sql: str, literals: list[tuple[str, str, str]]) -> None:
    """PostgreSQL's ways to write a string, any text in them, one after the other: nothing of it is shown."""
    for form, text, between in literals:
        around = text[: len(text) // 2] + SECRET + text[len(text) // 2 :]
        if form in {"dollars", "tagged"}:
            around = around.replace("$", "")
        sql += f" {'||' if between == '|' else between} {FORMS[form](around)}"
    assert SECRET not in obfuscated(sql)


@pytest.mark.parametrize(
    ("nonsense", "shown"),
    [
        (f"SELECT '{SECRET} is not ended", "SELECT ?"),
        (f"select $a$ {SECRET}", "SELECT ?"),
        (f"'{SECRET}", "?"),
        (f"UPDATE tea SET a = '{'x' * LONGEST}{SECRET}'", "UPDATE ?"),
        ("\0", None),
        ("a" * LONGEST, None),
        ("(" * 2000, None),
        ("\ud800 'x", "?"),
    ],
    ids=repr,
)
def test_what_can_not_be_read(nonsense: str, shown: str | None) -> None:
    """Of what is no SQL, or too long, the command is left; whatever comes, nothing is raised."""
    found = obfuscated(nonsense)
    assert SECRET not in found
    assert shown in {None, found}


def test_without_the_lexer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the command is left."""
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    _sql._lexer.cache_clear()
    _sql._lexed.cache_clear()
    assert obfuscated("SELECT 'x' FROM tea") == "SELECT ?"
    monkeypatch.undo()
    _sql._lexed.cache_clear()
    assert obfuscated("SELECT 'x' FROM tea") == "SELECT ? FROM tea"
