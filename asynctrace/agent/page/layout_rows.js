// The waterfall: one row a span, in the order of the tree, below those that are folded away nothing.

import { ROW } from "./layout_flame.js";

/** The layout; see `flame`. `closed` holds the numbers of spans whose subtrees are folded. */
export function waterfall(trace, closed, gutter) {
  const y = new Float64Array(trace.count).fill(-1);
  const rows = new Map();
  const order = [];
  let at = 4;
  for (let i = 0; i < trace.count; i++) {
    y[i] = at;
    rows.set(at, [i]);
    order.push(i);
    at += ROW;
    if (closed.has(i)) i += trace.size[i] - 1;
  }
  return { kind: "waterfall", y, rows, order, headers: [], height: at + 4, gutter };
}
