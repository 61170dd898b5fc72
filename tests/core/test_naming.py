"""Names as ddtrace makes them, under Datadog's settings."""

from __future__ import annotations

import pytest

from asynctrace._core.naming import entry_service, function_name, integration_service
from tests.core.process import run


@pytest.mark.parametrize(
    ("settings", "service"),
    [
        ({}, "aiohttp-web"),
        ({"DD_SERVICE": "shop"}, "shop"),
        ({"DD_TAGS": "team:core,service:shop"}, "shop"),
        ({"DD_TAGS": "team:core service:shop"}, "shop"),
        ({"DD_TAGS": "team:core"}, "aiohttp-web"),
        ({"DD_SERVICE": "shop", "DD_TAGS": "service:other"}, "shop"),
    ],
)
def test_the_service_of_an_entry(
    settings: dict[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DD_SERVICE`, else what `DD_TAGS` says, else the integration's own."""
    monkeypatch.delenv("DD_SERVICE", raising=False)
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    assert entry_service("aiohttp-web") == service


def test_the_service_of_an_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DD_<INTEGRATION>_SERVICE`, else its own."""
    assert integration_service("asyncpg", "postgres") == "postgres"
    monkeypatch.setenv("DD_ASYNCPG_SERVICE", "ledger")
    assert integration_service("asyncpg", "postgres") == "ledger"


@pytest.mark.parametrize(
    "settings",
    [
        {"DD_TRACE_SPAN_ATTRIBUTE_SCHEMA": "v1"},
        {"DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED": "true"},
    ],
    ids=["v1", "removed"],
)
def test_services_are_inherited(settings: dict[str, str]) -> None:
    """Under the schema v1, or where integrations are to have no names of their own."""
    program = """
        from asynctrace._core.naming import SCHEMA, entry_service, integration_service, operation
        print(SCHEMA, operation("a", "b"), entry_service("aiohttp-web"), integration_service("asyncpg", "postgres"))
    """
    schema = settings.get("DD_TRACE_SPAN_ATTRIBUTE_SCHEMA", "v0")
    printed = run(program, DD_TRACE_AGENT_URL="http://127.0.0.1:9", DD_TAGS="service:shop", **settings)
    assert printed == f"{schema} {'b' if schema == 'v1' else 'a'} shop None"


class Shop:
    def buy(self) -> None: ...


def test_functions() -> None:
    """`module.function`; what has no name has its type's, and what has no module goes without."""
    assert function_name(Shop.buy) == f"{__name__}.buy"
    assert function_name(Shop()) == f"{__name__}.Shop"  # type: ignore[arg-type]
    assert function_name(type("Odd", (), {"__module__": None})()) == "Odd"
