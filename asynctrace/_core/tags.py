"""Tags that an integration has made fit for the wire, set all at once: they are not looked at one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrace._core.tracer import set_tags

if TYPE_CHECKING:
    from asynctrace._core.span import Span
    from asynctrace._core.values import Fit


def tag(span: Span, tags: Fit) -> None:
    """Set them on a span that is open; none of those in `values.AT_ONCE`."""
    if not span._id:
        span._known()
    if span._dd is None:
        if span._tags is None or span._tags is span._given:
            span._tags = {**(span._tags or {}), **tags}
        else:
            span._tags.update(tags)
    if span._dd is not None:  # by now
        set_tags(span._dd, tags)
