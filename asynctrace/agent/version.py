"""The version of asynctrace that is installed."""

from importlib.metadata import PackageNotFoundError, version


def asynctrace_version() -> str:
    """The installed version, or `"0+checkout"` in a checkout that is not installed."""
    try:
        return version("asynctrace")
    except PackageNotFoundError:
        return "0+checkout"
