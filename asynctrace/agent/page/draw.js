// Draws a layout on a canvas. Knows nothing of events; what it needs of the state is in `scene`:
//
//   trace, layout     what is drawn
//   from, to          the window of time, nanoseconds
//   width, height, scroll   of the view, pixels
//   selected, hovered       numbers of spans, or -1
//   hits              a Set of numbers when something is searched for, or null
//   path              steps of the critical path, or null
//   closed            numbers of folded spans (waterfall)

import { duration, ticks } from "./format.js";
import { drawnStart, label } from "./model.js";
import { barColor, colors, edgeColor } from "./theme.js";
import { ROW } from "./layout_flame.js";

export const AXIS = 24;
const BAR = 19;
const FONT = '11.5px system-ui, "DejaVu Sans", sans-serif';
const LETTER = 7; // pixels, of a wide one
const LEAST_LABEL = 30;
const MAX_ARROWS = 60; // beyond, only those of the selected span: more than that nobody can follow
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

/** Of a dotted name the part that tells it from others. */
const lastName = (said) => (/^[\w.]+$/.test(said) ? said.slice(said.lastIndexOf(".") + 1) : said);

function outlined(context, said, x, y, width) {
  const shown = fitted(context, said, width);
  context.strokeStyle = colors().bg;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeText(shown, x, y);
  context.fillStyle = colors().text;
  context.fillText(shown, x, y);
}

const widths = new Map();

function fits(context, said, room) {
  if (said.length * 3 > room && said.length > 300) return false;
  if (!widths.has(said)) {
    if (widths.size > 20_000) widths.clear();
    widths.set(said, context.measureText(said).width);
  }
  return widths.get(said) <= room;
}

/** As much of a text as there is room for. */
function fitted(context, said, room) {
  if (fits(context, said, room)) return said;
  let [kept, cut] = [0, Math.min(said.length, Math.ceil(room / 3))];
  while (kept + 1 < cut) {
    const middle = (kept + cut) >> 1;
    if (context.measureText(`${said.slice(0, middle)}…`).width <= room) kept = middle;
    else cut = middle;
  }
  return kept ? `${said.slice(0, kept)}…` : "";
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

/** From a parent in one lane to its child in another: calls, and messages through their queue. */
function arrows(context, view) {
  const { trace, layout, selected } = view;
  const few = trace.crossing.length <= MAX_ARROWS;
  const shown = few ? trace.crossing : trace.crossing.filter((i) => i === selected || trace.parent[i] === selected);
  for (const i of shown.slice(0, MAX_ARROWS)) {
    const parent = trace.parent[i];
    const at = drawnStart(trace, i);
    const leaves = Math.max(Math.min(at, trace.end[parent]), trace.start[parent]);
    const from = { x: view.x(leaves), y: view.top + layout.y[parent] + ROW - 2 };
    const to = { x: view.x(at), y: view.top + layout.y[i] + ROW / 2 };
    arrow(context, view, from, to, trace.kindOf(i) === "consumer");
  }
  for (const [one, other] of trace.links.slice(0, MAX_ARROWS)) {
    const from = { x: view.x(trace.start[one]), y: view.top + layout.y[one] + ROW / 2 };
    const to = { x: view.x(trace.end[other]), y: view.top + layout.y[other] + ROW / 2 };
    arrow(context, view, from, to, false);
  }
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
