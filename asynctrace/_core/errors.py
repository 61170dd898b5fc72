"""What asynctrace raises: only for wrong use of its own API, never into a running request, always with a hint."""

from __future__ import annotations


class AsyncTraceError(Exception):
    """Base of everything asynctrace raises; `hint` says what to do about it.

    Example:
        >>> error = AsyncTraceError("no such integration: 'redis'", hint="call install() without names")
        >>> print(error)
        no such integration: 'redis' (hint: call install() without names)
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} (hint: {hint})" if hint else message)
        self.hint = hint


class UsageError(AsyncTraceError, TypeError):
    """A function of asynctrace was given something it can't work with. Raised by the call that was given it."""


class IntegrationError(AsyncTraceError):
    """An integration asked for by name can't be installed. Raised by `install("name")`."""


class MissingLibraryError(IntegrationError, ImportError):
    """The integration's library is not installed: install the extra of that name."""


class UnsupportedVersionError(IntegrationError):
    """The installed version of the library is outside the range the integration supports."""
