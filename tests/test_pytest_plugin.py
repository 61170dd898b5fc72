"""The pytest plugin, in pytest sessions of their own: what it loads, gives, and says when a test fails."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.core.process import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable

    Session = Callable[..., pytest.RunResult]

pytest_plugins = "pytester"

pytestmark = pytest.mark.slow  # each is a pytest of its own: half a minute together

WITHOUT = ("-p", "no:ddtrace", "-p", "no:hypothesispytest", "-p", "no:cacheprovider")
"""Plugins that cost a second each time, and that nothing here is about."""

FAILING = """
from asynctrace import span, start_span

def test_it(traces):
    with span("outer"), span("inner"):
        pass
    late = start_span("late")
    assert False, "because"

def test_other(traces):
    assert traces.spans == []
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Runs pytest, in a process of its own, on a test file; asynctrace is found by the entry point alone."""
    # as an installer would write it, from pyproject.toml: the installation at hand may be older
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^\[project\.entry-points\.pytest11]\n((?:.+\n)+)", project, re.MULTILINE)
    metadata = pytester.mkdir("installed") / "asynctrace-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: asynctrace\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\n" + entry.replace('"', ""))
    path = os.pathsep.join([str(metadata.parent), str(ROOT)])
    settings = environment(PYTHONPATH=path, DD_TRACE_AGENT_URL=os.environ["DD_TRACE_AGENT_URL"])
    for name in tuple(os.environ):
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def run(source: str, *options: str, before: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_it=source)
        if before:
            pytester.makeconftest(before)
        return pytester.runpytest_subprocess(*WITHOUT, *options)

    return run


# -- what it loads


def test_nothing_but_pytest_until_used(session: Session) -> None:
    """A session in which no test asks for `traces` loads neither ddtrace nor the core."""
    result = session(
        """
        import sys
        def test_it(request):
            assert request.config.pluginmanager.has_plugin("asynctrace")
            ours = {name for name in sys.modules if name.split(".")[0] in ("asynctrace", "ddtrace")}
            assert ours == {"asynctrace", "asynctrace.pytest_plugin"}
        """
    )
    result.assert_outcomes(passed=1)


def test_its_fixture_is_documented(session: Session) -> None:
    """`pytest --fixtures` shows it."""
    session("", "--fixtures").stdout.fnmatch_lines(["traces -- *", "*asynctrace.testing.Recorder*"])


def test_registered_once(session: Session) -> None:
    """What this repository's own conftest does where the entry point is missing is no second registration here."""
    conftest = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
    (hook,) = re.findall(r"^def pytest_configure.*?\n\n\n", conftest, re.MULTILINE | re.DOTALL)
    for options in ((), ("-p", "no:asynctrace")):
        result = session(
            "def test_it(traces): pass", *options, before=f"from __future__ import annotations\n{hook}"
        )
        result.assert_outcomes(**({"errors": 1} if options else {"passed": 1}))


def test_a_users_own_fixture_wins(session: Session) -> None:
    """A fixture `traces` of the user's conftest is the one that the user's tests get."""
    result = session(
        "def test_it(traces): assert traces == 'mine'",
        before="import pytest\n@pytest.fixture\ndef traces(): return 'mine'",
    )
    result.assert_outcomes(passed=1)


# -- what it gives


def test_records_during_the_test_only(session: Session) -> None:
    """The recorder runs while the test does, each test has its own, and is stopped when the test has failed."""
    result = session(
        """
        from asynctrace import span
        from asynctrace._core.listening import listeners
        def test_first(traces):
            assert listeners == [traces]
            with span("first"):
                pass
            assert traces.names() == {"first"}
        def test_failing(traces):
            assert traces.spans == []
            assert 0
        def test_without():
            assert listeners == []
        """
    )
    result.assert_outcomes(passed=2, failed=1)


def test_ddtrace_is_never_flushed(session: Session) -> None:
    """With no agent there, tests neither wait for it nor flush."""
    result = session(
        """
        import pytest
        from ddtrace.trace import tracer
        from asynctrace import span
        @pytest.fixture(autouse=True, scope="module")
        def flushes():
            calls, flush = [], tracer.flush
            tracer.flush = lambda *args, **kwargs: calls.append(args)
            yield
            tracer.flush = flush
            assert calls == []
        def test_it(traces):
            with span("a"):
                pass
            assert traces.names() == {"a"}
        """
    )
    result.assert_outcomes(passed=1)


ASYNC_TEST = """
    import asyncio, pytest
    from asynctrace import span
    {mark}
    async def test_it(traces):
        async def work(name):
            with span(name):
                await asyncio.sleep(0)
        with span("outer"):
            await asyncio.gather(work("a"), work("b"))
            task = asyncio.create_task(work("background"))
        await traces.wait_for("background")
        await task
        print("LOOP", type(asyncio.get_running_loop()).__module__)
        traces.assert_tree('''
            outer
              a
              b
              background
        ''')
        traces.assert_finished()
"""

ASYNC_FIXTURE = """
import pytest
from asynctrace import span
@pytest.fixture
async def opened(traces):
    with span("set-up"):
        yield
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_with_pytest_asyncio(session: Session, loop: str) -> None:
    """Async tests of pytest-asyncio, on the stock loop and on uvloop."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    before = f"""
        import asyncio, {loop}
        def pytest_asyncio_loop_factories(item):
            return {{"{loop}": {loop}.new_event_loop}}
    """
    result = session(ASYNC_TEST.format(mark="@pytest.mark.asyncio"), "-s", "-p", "no:anyio", before=before)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*LOOP {loop}*"])


@pytest.mark.parametrize("options", ["{}", "{'use_uvloop': True}"])
def test_with_anyio(session: Session, options: str) -> None:
    """Async tests of anyio's plugin, on the stock loop and on uvloop."""
    pytest.importorskip("uvloop")
    before = f"import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio', {options}"
    result = session(ASYNC_TEST.format(mark="@pytest.mark.anyio"), "-s", "-p", "no:asyncio", before=before)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*LOOP {'uvloop' if 'uvloop' in options else 'asyncio'}*"])


def test_with_an_async_fixture(session: Session) -> None:
    """A fixture that uses `traces` shares it with its test."""
    result = session(
        """
        async def test_it(opened, traces):
            assert [one.name for one in traces.open] == ["set-up"]
        """,
        "-p",
        "no:anyio",
        "-o",
        "asyncio_mode=auto",
        before=ASYNC_FIXTURE,
    )
    result.assert_outcomes(passed=1)


def test_with_xdist(session: Session) -> None:
    """Spread over processes: what failed says what was traced."""
    pytest.importorskip("xdist")
    result = session(FAILING, "-n", "2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*- asynctrace: what was traced -*", "outer", "  inner", "still open:", "  late"]
    )


# -- what it says


def test_a_failure_shows_the_tree_and_what_is_open(session: Session) -> None:
    """A section of the report has both."""
    result = session(FAILING, "-k", "not other")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(
        ["*because*", "*- asynctrace: what was traced -*", "outer", "  inner", "still open:", "  late"],
    )


def test_no_section_without_a_reason(session: Session) -> None:
    """Neither when the test passes, nor when it did not use `traces`."""
    result = session("def test_it(traces): pass\ndef test_other(): assert 0", "-rA")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*what was traced*")


def test_set_up_and_tear_down_that_fail(session: Session) -> None:
    """They are failures of the test, too: a section each."""
    result = session(
        """
        import pytest
        from asynctrace import span
        @pytest.fixture
        def broken(traces):
            with span("set-up"):
                pass
            raise ValueError
        @pytest.fixture
        def breaks(traces):
            yield
            with span("tear-down"):
                pass
            raise ValueError
        def test_a(broken): pass
        def test_b(breaks): pass
        """
    )
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*what was traced*", "set-up", "*what was traced*", "tear-down"])


def test_a_failed_assertion_points_at_the_test(session: Session) -> None:
    """The report shows the line of the test and both trees, not the insides of the test kit."""
    result = session(
        """
        from asynctrace import span
        def test_it(traces):
            with span("a"):
                pass
            traces.assert_tree("b")
        """
    )
    result.stdout.fnmatch_lines(
        [">*traces.assert_tree*", "E *the traces are not as expected*", "E *- b", "E *+ a"]
    )
    result.stdout.no_fnmatch_line("*testing.py:*")


def test_spans_are_let_go(session: Session) -> None:
    """What a test has traced is not kept until the session ends."""
    result = session(
        """
        import gc, weakref
        from asynctrace.testing import Recorder
        seen = []
        def test_first(traces):
            seen.append(weakref.ref(traces))
        def test_second():
            gc.collect()
            assert seen[0]() is None
        """
    )
    result.assert_outcomes(passed=2)
