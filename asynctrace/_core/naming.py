"""Names the way ddtrace makes them: of functions, operations and services.

Datadog knows two naming schemas, `DD_TRACE_SPAN_ATTRIBUTE_SCHEMA=v0` (the default) and `v1`
(ddtrace/internal/schema/span_attribute_schema.py). Read once, at import, as ddtrace does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ddtrace

from asynctrace._core.values import text

if TYPE_CHECKING:
    from collections.abc import Callable


def is_true(setting: str) -> bool:
    """Whether a setting's text means yes, as ddtrace reads it (ddtrace/internal/utils/formats.py, asbool)."""
    return setting.strip().lower() in {"1", "true"}


def is_on(name: str) -> bool:
    """Whether a switch in the environment is not off."""
    setting = os.environ.get(name)
    return setting is None or is_true(setting)


SCHEMA = "v1" if os.environ.get("DD_TRACE_SPAN_ATTRIBUTE_SCHEMA", "v0").lower() == "v1" else "v0"

_WITHOUT_INTEGRATION_SERVICES = SCHEMA == "v1" or is_true(
    os.environ.get("DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED", "")
)

_WITH_CLASS = is_true(os.environ.get("DD_TRACE_WRAP_SPAN_NAME_INCLUDE_CLASS", ""))


def operation(v0: str, v1: str) -> str:
    """The operation's name under the schema in force."""
    return v1 if SCHEMA == "v1" else v0


def integration_service(integration: str, default: str | None) -> str | None:
    """The service of an integration's spans: `DD_<INTEGRATION>_SERVICE`, else its default under v0, else inherited.

    Read at every call site once, when the integration is first used: ddtrace reads it at import.
    """
    configured = os.environ.get(f"DD_{integration.upper()}_SERVICE")
    if configured:
        return configured
    return None if _WITHOUT_INTEGRATION_SERVICES else default


def service_source(integration: str, service: str | None, default: str | None) -> dict[str, str]:
    """The tag that says who named an integration's service, where that is not its user.

    As ddtrace's own integrations have it (ddtrace/contrib/internal/trace_utils.py, set_service_and_source).
    """
    if service in ddtrace.config.service_mapping:
        return {"_dd.svc_src": "opt.service_mapping"}
    return {"_dd.svc_src": integration} if service in {default, None} else {}


def entry_service(default: str) -> str:
    """The service of a server's or consumer's span: `DD_SERVICE`, else the integration's own name."""
    configured = os.environ.get("DD_SERVICE") or _service_in_tags()
    return configured or (
        str(ddtrace.config.service or default) if _WITHOUT_INTEGRATION_SERVICES else default
    )


def _service_in_tags() -> str:
    for item in os.environ.get("DD_TAGS", "").replace(",", " ").split():
        key, _, value = item.partition(":")
        if key == "service":
            return value
    return ""


def function_name(function: Callable[..., Any]) -> str:
    """`module.function`; for methods with the class when `DD_TRACE_WRAP_SPAN_NAME_INCLUDE_CLASS` asks for it.

    As `tracer.wrap` names spans (ddtrace/_trace/tracer.py, _default_wrap_span_name).
    """
    module = text(getattr(function, "__module__", None) or "")
    name = text(getattr(function, "__name__", None) or type(function).__name__)
    scopes = text(getattr(function, "__qualname__", name)).split(".")
    if _WITH_CLASS and len(scopes) > 1 and scopes[-2] != "<locals>":
        inner = scopes[len(scopes) - scopes[::-1].index("<locals>") :] if "<locals>" in scopes else scopes
        name = ".".join(inner)
    return f"{module}.{name}" if module else name
