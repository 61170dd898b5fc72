"""What is wrong between traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrace._testkit import trees

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from asynctrace._testkit.recorded import RecordedSpan


def crosstalk(traces: Mapping[int, list[RecordedSpan]], by: str | Callable[[RecordedSpan], Hashable]) -> str:
    """The traces that have spans of several requests, or a request that another has, too; empty if there are none."""

    def request_of(span: RecordedSpan) -> Hashable:
        return span.tags.get(by) if isinstance(by, str) else by(span)

    def label(span: RecordedSpan) -> str:
        request = request_of(span)
        return span.name if request is None else f"{span.name} [{request}]"

    homes: dict[Hashable, set[int]] = {}
    requests: dict[int, set[Hashable]] = {}
    for trace_id, spans in traces.items():
        for span in spans:
            if (request := request_of(span)) is not None:
                homes.setdefault(request, set()).add(trace_id)
                requests.setdefault(trace_id, set()).add(request)
    if not homes:
        drawn = "\n".join(
            trees.draw(trees.forest((one for spans in traces.values() for one in spans), label))
        )
        return f"no span tells whose it is by {by!r} in\n{drawn or '(nothing)'}"
    wrong = {trace_id for ids in homes.values() if len(ids) > 1 for trace_id in ids}
    wrong |= {trace_id for trace_id, names in requests.items() if len(names) > 1}
    parts = ["requests share a trace, or have more than one:"] if wrong else []
    for trace_id in (one for one in traces if one in wrong):
        drawn = "\n".join(trees.draw(trees.forest(traces[trace_id], label)))
        parts.append(f"trace {trace_id:032x}\n{trees.indented(drawn)}")
    return "\n".join(parts)
