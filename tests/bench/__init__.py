"""`python3 -m tests.bench`: what tracing costs, side by side: bare, ddtrace, OpenTelemetry, asynctrace.

`worker.py` is the process of one contender, `kits/` what the contenders have in common, `rows/` what is measured:
one file a group of rows. To add a row, write a `Row` into one of them; to add a group, name its file in `rows.GROUPS`.
"""
