"""Where the demo's services find each other and their servers."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

POSTGRES_URL = os.environ.get("DEMO_POSTGRES_URL", "postgresql://postgres@127.0.0.1/postgres")
SCHEMA = os.environ.get("DEMO_SCHEMA", "asynctrace_demo")
AMQP_URL = os.environ.get("DEMO_AMQP_URL", "amqp://guest:guest@127.0.0.1/")
QUEUE = os.environ.get("DEMO_QUEUE", "asynctrace-demo")
PRICING_URL = os.environ.get("DEMO_PRICING_URL", "http://127.0.0.1:8082")
BACK_URL = os.environ.get("DEMO_BACK_URL", "http://127.0.0.1:8084")


def database() -> Any:
    """A pool of connections that sees the tables of the demo."""
    return asyncpg.create_pool(POSTGRES_URL, min_size=1, max_size=4, server_settings={"search_path": SCHEMA})


def ready(address: str = "") -> None:
    """Tell the launcher, which reads the first line, that work can come."""
    print(f"ready {address}".strip(), flush=True)
