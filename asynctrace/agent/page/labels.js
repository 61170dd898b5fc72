// Texts on a canvas, as long as there is room for them.

import { colors } from "./theme.js";

/** Of a dotted name the part that tells it from others. */
export const lastName = (said) => (/^[\w.]+$/.test(said) ? said.slice(said.lastIndexOf(".") + 1) : said);

export function outlined(context, said, x, y, width) {
  const shown = fitted(context, said, width);
  context.strokeStyle = colors().bg;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeText(shown, x, y);
  context.fillStyle = colors().text;
  context.fillText(shown, x, y);
}

const widths = new Map();

export function fits(context, said, room) {
  if (said.length * 3 > room && said.length > 300) return false;
  if (!widths.has(said)) {
    if (widths.size > 20_000) widths.clear();
    widths.set(said, context.measureText(said).width);
  }
  return widths.get(said) <= room;
}

/** As much of a text as there is room for. */
export function fitted(context, said, room) {
  if (fits(context, said, room)) return said;
  let [kept, cut] = [0, Math.min(said.length, Math.ceil(room / 3))];
  while (kept + 1 < cut) {
    const middle = (kept + cut) >> 1;
    if (context.measureText(`${said.slice(0, middle)}…`).width <= room) kept = middle;
    else cut = middle;
  }
  return kept ? `${said.slice(0, kept)}…` : "";
}
