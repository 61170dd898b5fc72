"""The pytest plugin: a fixture `traces`, which records what a test traces, and says so when the test fails.

    async def test_checkout(traces):
        await checkout()
        traces.assert_tree('''
            shop.checkout
              shop.price
        ''')

Found by pytest itself once asynctrace is installed. Loads nothing but pytest until the fixture is used: neither ddtrace
nor the rest of asynctrace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asynctrace.testing import Recorder

_RECORDER = pytest.StashKey["Recorder"]()


@pytest.fixture
def traces(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """What the test traces, as an `asynctrace.testing.Recorder`: traces.assert_tree(...), traces.spans, ..."""
    from asynctrace.testing import Recorder

    with Recorder() as recorder:
        request.node.stash[_RECORDER] = recorder
        yield recorder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure of a test that used `traces` shows them."""
    report = yield
    recorder = item.stash.get(_RECORDER, None)
    if recorder is not None:
        if report.failed:
            report.sections.append(("asynctrace: what was traced", recorder.report()))
        if call.when == "teardown":  # the item lives as long as the session, the spans need not
            del item.stash[_RECORDER]
    return report
