// A trace as columns: span number i is the i-th entry of each. Parents come before their children and a
// span's whole subtree follows it, so that `i + 1 .. i + size[i] - 1` is everything below span i.

/** The model of what `/columns` answers. Times are nanoseconds since the trace began. */
export function model(data) {
  const { columns, texts } = data;
  const count = columns.id.length;
  const start = Float64Array.from(columns.start);
  const duration = Float64Array.from(columns.duration);
  const parent = Int32Array.from(columns.parent);
  const depth = new Int32Array(count);
  const size = new Int32Array(count).fill(1);
  for (let i = 0; i < count; i++) depth[i] = parent[i] < 0 ? 0 : depth[parent[i]] + 1;
  for (let i = count - 1; i > 0; i--) if (parent[i] >= 0) size[parent[i]] += size[i];
  const numbers = Array.from({ length: count }, (_, i) => i);
  const lane = columns.lane;
  const text = (column) => (i) => texts[columns[column][i]];
  return {
    ...data, began: data.start, extent: Math.max(data.duration, 1),
    count, start, duration, parent, depth, size,
    end: start.map((at, i) => at + duration[i]),
    id: columns.id,
    lane: Int32Array.from(lane),
    error: Uint8Array.from(columns.error),
    orphans: numbers.filter((i) => columns.orphan[i]),
    errors: numbers.filter((i) => columns.error[i]),
    crossing: numbers.filter((i) => parent[i] >= 0 && lane[parent[i]] !== lane[i]),
    nameOf: text("name"), serviceOf: text("service"), resourceOf: text("resource"),
    outcomeOf: text("outcome"), kindOf: text("kind"),
    services: services(columns.service, texts),
    partsOf: group(data.parts),
    partKinds: new Set(data.parts.map(([, kind]) => kind)),
    numberOf: new Map(columns.id.map((id, i) => [id, i])),
  };
}

function group(parts) {
  const found = new Map();
  for (const [span, kind, label, offset, duration] of parts) {
    if (!found.has(span)) found.set(span, []);
    found.get(span).push({ kind, label, offset, duration });
  }
  return found;
}

/** What a bar says of its span. */
export function label(trace, i) {
  return trace.resourceOf(i) || trace.nameOf(i);
}

/** Where what is drawn of a span begins: waits before it are drawn in its row. */
export function drawnStart(trace, i) {
  const first = trace.partsOf.get(i)?.[0];
  return trace.start[i] + Math.min(first ? first.offset : 0, 0);
}

/** The services of a trace with the number of their spans, the first to appear first. */
function services(numbers, texts) {
  const counts = new Map();
  for (const number of numbers) counts.set(number, (counts.get(number) || 0) + 1);
  return [...counts].map(([number, count]) => [texts[number], count]);
}
