// The flame graph: lanes (a service in a process each) below each other; in a lane children below their
// parent, and siblings that overlap in time beside each other in rows of their own.
//
// Each subtree is a block that knows of each of its rows when it begins and ends. A block is put at the first
// row below its parent where all of its rows are free.

import { drawnStart } from "./model.js";

export const ROW = 24;
const HEADER = 27;
const GAP = 10;

/** The layout: `y[i]` of each span, `rows` (spans by row, in order of time), `headers` of lanes, `height`. */
export function flame(trace) {
  const offset = new Int32Array(trace.count);
  const lanes = pack(trace, offset);
  const headers = [];
  const top = [];
  let y = 0;
  lanes.forEach((block, lane) => {
    headers.push({ y, lane });
    top.push(y + HEADER);
    y += HEADER + (block ? block.height * ROW : 0) + GAP;
  });
  const yOf = new Float64Array(trace.count);
  for (let i = 0; i < trace.count; i++) {
    yOf[i] = offset[i] * ROW + (inLaneOfParent(trace, i) ? yOf[trace.parent[i]] + ROW : top[trace.lane[i]]);
  }
  return { kind: "flame", y: yOf, rows: rows(trace, yOf), headers, height: y, gutter: 0 };
}

const inLaneOfParent = (trace, i) => trace.parent[i] >= 0 && trace.lane[trace.parent[i]] === trace.lane[i];

/** Puts every span into a row; `offset` becomes the rows between it and its parent. Gives each lane's block. */
function pack(trace, offset) {
  const children = new Map();
  const lanes = trace.lanes.map(() => null);
  const placeAll = (below, block) => {
    for (let k = below.length - 1; k >= 0; k--) offset[below[k].span] = block.add(below[k].block);
  };
  for (let i = trace.count - 1; i >= 0; i--) {
    const block = new Block();
    placeAll(children.get(i) || [], block);
    children.delete(i);
    block.cap(drawnStart(trace, i), trace.end[i]);
    const key = inLaneOfParent(trace, i) ? trace.parent[i] : `lane ${trace.lane[i]}`;
    if (!children.has(key)) children.set(key, []);
    children.get(key).push({ span: i, block }); // the last sibling first
  }
  trace.lanes.forEach((_, lane) => {
    const roots = children.get(`lane ${lane}`);
    if (!roots) return;
    roots.sort((a, b) => trace.start[b.span] - trace.start[a.span]);
    lanes[lane] = new Block();
    placeAll(roots, lanes[lane]);
  });
  return lanes;
}

class Block {
  // Rows from the bottom up: a parent's row is pushed on top without moving those below, at any depth.
  starts = [];
  ends = [];
  least = Infinity; // no row ends before this

  get height() {
    return this.starts.length;
  }

  /** Puts the parent's own row on top. */
  cap(start, end) {
    this.starts.push(start);
    this.ends.push(end);
    this.least = Math.min(this.least, end);
  }

  /** Puts a block where it has room, and says how many rows below the top that is. */
  add(other) {
    if (!this.height) {
      [this.starts, this.ends, this.least] = [other.starts, other.ends, other.least];
      return 0;
    }
    const at = this.#place(other);
    const extra = at + other.height - this.height;
    if (extra > 0) this.#extend(other, extra);
    for (let row = 0; row < other.height; row++) {
      const own = this.height - 1 - at - row;
      const its = other.height - 1 - row;
      this.starts[own] = Math.min(this.starts[own], other.starts[its]);
      this.ends[own] = Math.max(this.ends[own], other.ends[its]);
    }
    this.least = Math.min(this.least, other.least);
    return at;
  }

  #place(other) {
    if (other.starts[other.height - 1] < this.least) return this.height;
    for (let at = 0; at < this.height; at++) if (this.#hasRoom(other, at)) return at;
    this.least = this.ends.reduce((least, end) => Math.min(least, end), Infinity);
    return this.height;
  }

  #hasRoom(other, at) {
    const rows = Math.min(other.height, this.height - at);
    for (let row = 0; row < rows; row++) {
      if (this.ends[this.height - 1 - at - row] > other.starts[other.height - 1 - row]) return false;
    }
    return true;
  }

  #extend(other, extra) {
    const empty = new Array(extra);
    this.starts = [...empty.fill(Infinity), ...this.starts];
    this.ends = [...new Array(extra).fill(-Infinity), ...this.ends];
  }
}

/** The spans of each row in the order of time, by the row's y. */
function rows(trace, y) {
  const found = new Map();
  for (let i = 0; i < trace.count; i++) {
    if (!found.has(y[i])) found.set(y[i], []);
    found.get(y[i]).push(i);
  }
  for (const spans of found.values()) spans.sort((a, b) => trace.start[a] - trace.start[b]);
  return found;
}
