"""What `asynctrace.testing` is made of: spans as data, trees as text, checks, waiting."""
