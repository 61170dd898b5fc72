// What keys do in a trace: from span to span, from view to view, closer and farther.

import { around } from "./chart.js";
import { copyLink } from "./copy.js";
import { useKeys } from "./keys.js";

export function useTraceKeys({ trace, layout, selected, route, closed, select, toggle, go, setMarked, say }) {
  const row = (by) => {
    if (!trace) return;
    if (route.view === "waterfall") {
      const at = layout.order.indexOf(selected);
      select(layout.order[Math.min(Math.max(at + by, 0), layout.order.length - 1)]);
    } else if (by > 0) select(selected < 0 ? 0 : trace.size[selected] > 1 ? selected + 1 : selected);
    else if (selected >= 0 && trace.parent[selected] >= 0) select(trace.parent[selected]);
  };
  const side = (by) => {
    if (!trace || selected < 0) return;
    if (route.view === "waterfall") {
      if (closed.has(selected) === by > 0 && trace.size[selected] > 1) toggle(selected);
      return;
    }
    const next = sibling(trace, selected, by);
    if (next >= 0) select(next);
  };
  const nextError = () => {
    if (!trace || !trace.errors.length) return;
    select(trace.errors.find((i) => i > selected) ?? trace.errors[0]);
  };
  useKeys({
    f: () => go({ view: "flame" }),
    w: () => go({ view: "waterfall" }),
    c: () => setMarked((on) => !on),
    e: nextError,
    ArrowDown: () => row(1),
    ArrowUp: () => row(-1),
    ArrowLeft: () => side(-1),
    ArrowRight: () => side(1),
    Enter: () => selected >= 0 && go({ window: around(trace, selected) }, { quiet: true }),
    0: () => go({ window: null }, { quiet: true }),
    "+": () => zoom(trace, route, go, 0.6),
    "-": () => zoom(trace, route, go, 1 / 0.6),
    y: () => copyLink(say),
    Escape: () => go({ span: null, window: null }, { quiet: true }),
  });
}

function sibling(trace, i, by) {
  const parent = trace.parent[i];
  if (by > 0) {
    const next = i + trace.size[i];
    return next < trace.count && trace.parent[next] === parent ? next : -1;
  }
  let before = -1;
  for (let k = parent + 1; k < i; k += trace.size[k]) if (trace.parent[k] === parent) before = k;
  return before;
}

function zoom(trace, route, go, factor) {
  if (!trace) return;
  const [from, to] = route.window || [0, trace.extent * 1.01];
  const center = (from + to) / 2;
  const half = ((to - from) / 2) * factor;
  const window = half * 2 >= trace.extent ? null : [Math.max(center - half, 0), Math.max(center - half, 0) + 2 * half];
  go({ window }, { quiet: true });
}
