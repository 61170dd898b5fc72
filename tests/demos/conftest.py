"""The demos of these tests share the suite's servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demos.services import Service


@pytest.fixture(scope="package")
def servers(postgres: Service, rabbitmq: Service) -> Iterator[None]:
    """The demos below use the servers that the tests have; to find or start their own is tested with these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCTRACE_POSTGRES_URL", postgres.url)
        patch.setenv("ASYNCTRACE_AMQP_URL", rabbitmq.url)
        patch.setenv("ASYNCTRACE_PRIVATE", "0")
        patch.setenv("ASYNCTRACE_SERVICES_HIDE", "")
        yield
