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
  // Of each row when it begins and ends: in `above`, the last first, those that parents put on top one by one;
  // below them, in order, those that made room for siblings. So neither moves the other.
  above = new Rows();
  below = NONE;
  least = Infinity; // no row ends before this

  get height() {
    return this.above.size + this.below.size;
  }

  start(row) {
    const { above, below } = this;
    return row < above.size ? above.starts[above.size - 1 - row] : below.starts[row - above.size];
  }

  end(row) {
    const { above, below } = this;
    return row < above.size ? above.ends[above.size - 1 - row] : below.ends[row - above.size];
  }

  /** Puts the parent's own row on top. */
  cap(start, end) {
    this.above.push(start, end);
    this.least = Math.min(this.least, end);
  }

  /** Puts a block where it has room, and says how many rows below the top that is. */
  add(other) {
    if (!this.height) {
      [this.above, this.below, this.least] = [other.above, other.below, other.least];
      return 0;
    }
    const at = this.#place(other);
    for (let row = 0; row < other.height; row++) this.#widen(at + row, other.start(row), other.end(row));
    this.least = Math.min(this.least, other.least);
    return at;
  }

  #place(other) {
    const first = other.start(0);
    const { height, above, below } = this;
    if (first < this.least) return height;
    this.least = Infinity;
    for (let at = 0; at < height; at++) {
      const skip = at >= above.size ? below.busy(at - above.size, first) : 0;
      if (skip) {
        at += skip - 1;
        continue;
      }
      const end = this.end(at);
      if (end <= first && this.#hasRoom(other, at)) {
        this.least = -Infinity; // not all rows were looked at
        return at;
      }
      if (end < this.least) this.least = end;
    }
    for (const end of below.leasts) if (end < this.least) this.least = end;
    return height;
  }

  #hasRoom(other, at) {
    const rows = Math.min(other.height, this.height - at);
    for (let row = 1; row < rows; row++) if (this.end(at + row) > other.start(row)) return false;
    return true;
  }

  #widen(row, start, end) {
    const { above, below } = this;
    if (row < above.size) above.widen(above.size - 1 - row, start, end);
    else if (row - above.size < below.size) below.widen(row - above.size, start, end);
    else {
      if (below === NONE) this.below = new Rows();
      this.below.push(start, end);
    }
  }
}

const STRETCH = 64;

class Rows {
  starts = [];
  ends = [];
  leasts = []; // of each stretch of rows a time before which none of them ends: to pass over it when all are busy

  get size() {
    return this.starts.length;
  }

  push(start, end) {
    const stretch = Math.floor(this.size / STRETCH);
    this.leasts[stretch] = Math.min(this.leasts[stretch] ?? Infinity, end);
    this.starts.push(start);
    this.ends.push(end);
  }

  widen(row, start, end) {
    if (start < this.starts[row]) this.starts[row] = start;
    if (end > this.ends[row]) this.ends[row] = end;
  }

  /** How many rows from this one on are all busy at a time; 0 when they must be looked at one by one. */
  busy(row, time) {
    if (row % STRETCH) return 0;
    const stretch = row / STRETCH;
    if (this.leasts[stretch] <= time) {
      let least = Infinity;
      for (let k = row; k < Math.min(row + STRETCH, this.size); k++) least = Math.min(least, this.ends[k]);
      this.leasts[stretch] = least;
      if (least <= time) return 0;
    }
    return Math.min(STRETCH, this.size - row);
  }
}

const NONE = new Rows(); // most blocks are one span: rows of their own would be most of the work

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
