// Draws a layout on a canvas. Knows nothing of events; what it needs of the state is in `scene`:
//
//   trace, layout     what is drawn
//   from, to          the window of time, nanoseconds
//   width, height, scroll   of the view, pixels
//   selected, hovered       numbers of spans, or -1
//   hits              a Set of numbers when something is searched for, or null
//   path              steps of the critical path, or null
//   closed            numbers of folded spans (waterfall)

import { arrows } from "./draw_arrows.js";
import { duration, ticks } from "./format.js";
import { fits, fitted, lastName, outlined } from "./labels.js";
import { drawnStart, label } from "./model.js";
import { barColor, colors, edgeColor } from "./theme.js";
import { ROW } from "./layout_flame.js";

export const AXIS = 24;
const BAR = 19;
const FONT = '11.5px system-ui, "DejaVu Sans", sans-serif';
const LETTER = 7; // pixels, of a wide one
const LEAST_LABEL = 30;
const HATCHED = new Set(["pool", "queue", "buffer"]);

export function draw(context, scene) {
  const view = { ...scene, plot: scene.width - scene.layout.gutter };
  view.x = (ns) => scene.layout.gutter + ((ns - scene.from) / (scene.to - scene.from)) * view.plot;
  view.top = AXIS - scene.scroll;
  context.font = FONT;
  context.textBaseline = "middle";
  context.fillStyle = colors().bg;
  context.fillRect(0, 0, scene.width, scene.height);
  grid(context, view);
  headers(context, view);
  clipped(context, view, () => {
    eachVisible(view, (i, y) => bar(context, view, i, y));
    if (scene.path) criticalPath(context, view);
    if (scene.layout.kind === "flame") arrows(context, view);
    outlines(context, view);
  });
  if (scene.layout.gutter) gutter(context, view);
  axis(context, view);
}

function clipped(context, view, body) {
  context.save();
  context.beginPath();
  context.rect(view.layout.gutter, AXIS, view.plot, view.height - AXIS);
  context.clip();
  body();
  context.restore();
}

function grid(context, view) {
  context.fillStyle = colors().faint;
  for (const [at] of ticks(view.from, view.to, view.plot)) context.fillRect(Math.round(view.x(at)), AXIS, 1, view.height);
}

function axis(context, view) {
  context.fillStyle = colors().bg;
  context.fillRect(0, 0, view.width, AXIS);
  context.fillStyle = colors().line;
  context.fillRect(0, AXIS - 1, view.width, 1);
  context.fillStyle = colors().muted;
  for (const [at, text] of ticks(view.from, view.to, view.plot)) {
    const x = Math.round(view.x(at));
    context.fillRect(x, AXIS - 6, 1, 5);
    if (x + text.length * LETTER < view.width) context.fillText(text, x + 4, AXIS / 2 - 1);
  }
}

function headers(context, view) {
  for (const { y, lane } of view.layout.headers) {
    const at = view.top + y;
    if (at < -ROW || at > view.height) continue;
    const { service, process } = view.trace.lanes[lane];
    context.fillStyle = colors().panel;
    context.fillRect(0, at + 3, view.width, 18);
    context.fillStyle = edgeColor(service);
    context.fillRect(0, at + 3, 3, 18);
    context.fillStyle = colors().text;
    context.fillText(service, 10, at + 12);
    const x = 18 + context.measureText(service).width;
    context.fillStyle = colors().muted;
    if (process) context.fillText(`pid ${process}`, x, at + 12);
  }
}

/** Calls with every span that is to be seen; of those smaller than a pixel, with one for each pixel. */
function eachVisible(view, call) {
  const { trace, layout } = view;
  for (const [y, spans] of layout.rows) {
    const at = view.top + y;
    if (at < AXIS - ROW || at > view.height) continue;
    let last = -1;
    for (let k = spans.length > 64 ? firstAfter(trace, spans, view.from) : 0; k < spans.length; k++) {
      const i = spans[k];
      if (drawnStart(trace, i) > view.to) break;
      if (trace.end[i] < view.from) continue;
      const x = Math.floor(view.x(trace.end[i]));
      if (x === last && view.selected !== i) continue;
      last = x;
      call(i, at);
    }
  }
}

/** The first span of a row that may still be there at a time: rows hold no overlaps but by a wait before. */
function firstAfter(trace, spans, at) {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (trace.end[spans[middle]] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function bar(context, view, i, y) {
  const { trace } = view;
  const left = Math.max(view.x(trace.start[i]), view.layout.gutter - 2);
  const right = Math.min(view.x(trace.end[i]), view.width + 2);
  const width = Math.max(right - left, 1);
  const top = y + (ROW - BAR) / 2;
  const service = trace.serviceOf(i);
  context.globalAlpha = view.hits && !view.hits.has(i) ? 0.2 : 1;
  context.fillStyle = barColor(service);
  context.fillRect(left, top, width, BAR);
  if (width > 3) {
    context.fillStyle = edgeColor(service);
    context.fillRect(left, top, width, 1);
    context.fillRect(left, top, 1, BAR);
  }
  const taken = parts(context, view, i, top);
  if (trace.error[i]) errorMark(context, left, top, width);
  if (!taken) text(context, view, i, left, width - (trace.error[i] && width > 40 ? 16 : 0), top);
  context.globalAlpha = 1;
}

/** The waits in and before a bar; whether they have taken the room for its label. */
function parts(context, view, i, top) {
  let taken = false;
  for (const part of view.trace.partsOf.get(i) || []) {
    const start = view.trace.start[i] + part.offset;
    const left = Math.max(view.x(start), view.layout.gutter - 2);
    const width = Math.min(view.x(start + part.duration), view.width + 2) - left;
    if (width < 0.7) continue;
    if (part.offset >= 0 && part.duration >= view.trace.duration[i] * 0.999) taken = true;
    context.fillStyle = HATCHED.has(part.kind) ? hatch(context, part.kind) : colors()[part.kind] || colors().gap;
    if (HATCHED.has(part.kind)) context.fillRect(left, top, width, BAR);
    else context.fillRect(left, top + BAR - 5, width, 5);
    if (HATCHED.has(part.kind) && width > LEAST_LABEL) {
      outlined(context, `${part.label} ${duration(part.duration)}`, left + 5, top + BAR / 2, width - 8);
    }
  }
  return taken;
}

const hatches = new Map();

function hatch(context, kind) {
  const color = colors()[kind];
  if (!hatches.has(color)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const inner = tile.getContext("2d");
    inner.fillStyle = color;
    inner.globalAlpha = 0.38;
    inner.fillRect(0, 0, 8, 8);
    inner.globalAlpha = 1;
    inner.strokeStyle = color;
    inner.lineWidth = 2;
    for (const shift of [-8, 0, 8]) {
      inner.moveTo(shift - 1, 9);
      inner.lineTo(shift + 9, -1);
    }
    inner.stroke();
    hatches.set(color, context.createPattern(tile, "repeat"));
  }
  return hatches.get(color);
}

function errorMark(context, left, top, width) {
  context.fillStyle = colors().error;
  context.fillRect(left, top + BAR - 2, width, 2);
  if (width > 14) {
    context.fillRect(left + width - 12, top, 12, BAR);
    context.fillStyle = "#fff";
    context.fillText("!", left + width - 8, top + BAR / 2 + 1);
  }
}

function text(context, view, i, left, width, top) {
  if (width < LEAST_LABEL) {
    if (view.layout.kind === "waterfall") timeBeside(context, view, i, left + width, top);
    return;
  }
  context.fillStyle = colors()["bar-text"];
  const said = label(view.trace, i);
  const time = duration(view.trace.duration[i]);
  const room = width - 9;
  const both = `${said}  ${time}`;
  const shown = fits(context, both, room) ? both : fitted(context, fits(context, said, room) ? said : lastName(said), room);
  context.fillText(shown, left + 5, top + BAR / 2 + 0.5);
}

/** In a row of its own a bar that is too short has room beside it. */
function timeBeside(context, view, i, right, top) {
  const time = duration(view.trace.duration[i]);
  if (right + time.length * LETTER > view.width) return;
  context.fillStyle = colors().muted;
  context.fillText(time, right + 6, top + BAR / 2 + 0.5);
}

function criticalPath(context, view) {
  context.fillStyle = colors().path;
  for (const step of view.path) {
    const y = view.layout.y[step.span];
    if (y < 0) continue;
    const left = view.x(step.start);
    const right = view.x(step.end);
    if (right < 0 || left > view.width) continue;
    context.fillRect(left, view.top + y + ROW - 2.5, Math.max(right - left, 1), 2.5);
  }
}

function outlines(context, view) {
  const { trace, layout } = view;
  for (const i of trace.orphans) if (layout.y[i] >= 0) outline(context, view, i, colors().error, [4, 3]);
  if (view.hovered >= 0) outline(context, view, view.hovered, colors().muted, []);
  if (view.selected >= 0 && layout.y[view.selected] >= 0) outline(context, view, view.selected, colors().select, [], 2);
}

function outline(context, view, i, color, dash, thick = 1.2) {
  const left = view.x(view.trace.start[i]);
  const width = Math.max(view.x(view.trace.end[i]) - left, 2);
  context.strokeStyle = color;
  context.lineWidth = thick;
  context.setLineDash(dash);
  context.strokeRect(left - 1, view.top + view.layout.y[i] + 1, width + 2, ROW - 2);
  context.setLineDash([]);
}

/** The names left of a waterfall. */
function gutter(context, view) {
  const { trace, layout, closed } = view;
  context.fillStyle = colors().bg;
  context.fillRect(0, AXIS, layout.gutter, view.height);
  const first = Math.max(0, Math.floor((view.scroll - ROW) / ROW));
  for (const i of layout.order.slice(first, first + Math.ceil(view.height / ROW) + 3)) {
    const y = view.top + layout.y[i];
    if (i === view.selected || i === view.hovered) {
      context.fillStyle = colors().panel;
      context.fillRect(0, y, layout.gutter, ROW);
    }
    context.globalAlpha = view.hits && !view.hits.has(i) ? 0.35 : 1;
    const x = 8 + Math.min(trace.depth[i], 24) * 12;
    context.fillStyle = edgeColor(trace.serviceOf(i));
    context.fillRect(x + 12, y + 5, 3, ROW - 10);
    context.fillStyle = colors().muted;
    if (trace.size[i] > 1) context.fillText(closed.has(i) ? "▸" : "▾", x, y + ROW / 2);
    context.fillStyle = trace.error[i] ? colors().error : colors().text;
    const folded = closed.has(i) ? ` (+${trace.size[i] - 1})` : "";
    context.fillText(fitted(context, label(trace, i) + folded, layout.gutter - x - 28), x + 20, y + ROW / 2);
    context.globalAlpha = 1;
  }
  context.fillStyle = colors().line;
  context.fillRect(layout.gutter - 1, AXIS, 1, view.height);
}
