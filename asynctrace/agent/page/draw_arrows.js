// Arrows from lane to lane: what called what, and what waited in which queue.

import { duration } from "./format.js";
import { drawnStart } from "./model.js";
import { colors } from "./theme.js";
import { ROW } from "./layout_flame.js";

const MAX_DWELLS = 10;
const MAX_ARROWS = 60; // beyond, only those of the selected span: more than that nobody can follow

/** From a parent in one lane to its child in another: calls, and messages through their queue. */
export function arrows(context, view) {
  const { trace, layout, selected } = view;
  const few = trace.crossing.length <= MAX_ARROWS;
  const shown = few ? trace.crossing : trace.crossing.filter((i) => i === selected || trace.parent[i] === selected);
  for (const i of shown.slice(0, MAX_ARROWS)) {
    const parent = trace.parent[i];
    const at = drawnStart(trace, i);
    const leaves = Math.max(Math.min(at, trace.end[parent]), trace.start[parent]);
    const from = { x: view.x(leaves), y: view.top + layout.y[parent] + ROW - 2 };
    const to = { x: view.x(at), y: view.top + layout.y[i] + ROW / 2 };
    const queue = trace.kindOf(i) === "consumer";
    arrow(context, view, from, to, queue);
    if (queue && shown.length <= MAX_DWELLS) dwell(context, trace, i, from, to);
  }
  for (const [one, other] of trace.links.slice(0, MAX_ARROWS)) {
    const from = { x: view.x(trace.start[one]), y: view.top + layout.y[one] + ROW / 2 };
    const to = { x: view.x(trace.end[other]), y: view.top + layout.y[other] + ROW / 2 };
    arrow(context, view, from, to, false);
  }
}

/** How long a message was on its way, beside its arrow. */
function dwell(context, trace, i, from, to) {
  const waited = (trace.partsOf.get(i) || []).filter((part) => part.offset < 0);
  if (!waited.length) return;
  const time = duration(waited.reduce((sum, part) => sum + part.duration, 0));
  context.fillStyle = colors().queue;
  context.fillText(time, Math.max(from.x, to.x) + 4, (from.y + to.y) / 2);
}

function arrow(context, view, from, to, queue) {
  if (Math.max(from.y, to.y) < 0 || Math.min(from.y, to.y) > view.height) return;
  if (Math.max(from.x, to.x) < 0 || Math.min(from.x, to.x) > view.width) return;
  context.strokeStyle = context.fillStyle = queue ? colors().queue : colors().muted;
  context.globalAlpha = queue ? 1 : 0.7;
  context.lineWidth = queue ? 1.8 : 1;
  context.setLineDash(queue ? [] : [3, 3]);
  const bend = Math.min(Math.abs(to.y - from.y) * 0.5, 60);
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.bezierCurveTo(from.x, from.y + bend, to.x - 14, to.y - bend * 0.4, to.x - 5, to.y);
  context.stroke();
  context.setLineDash([]);
  context.beginPath();
  context.moveTo(to.x, to.y);
  context.lineTo(to.x - 7, to.y - 3.5);
  context.lineTo(to.x - 7, to.y + 3.5);
  context.fill();
  context.globalAlpha = 1;
}
