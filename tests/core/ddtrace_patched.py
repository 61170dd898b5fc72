"""A pytest plugin: ddtrace's own integrations of asyncio and thread pools are on, before asynctrace's use or after."""

from __future__ import annotations

import importlib
import os

import ddtrace

if os.environ.get("ASYNCTRACE_FIRST"):
    importlib.import_module("asynctrace._core")

ddtrace.patch(asyncio=True, futures=True)
