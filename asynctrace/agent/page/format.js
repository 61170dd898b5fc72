// Numbers with their units, as people read them.

const UNITS = [[1, "ns"], [1e3, "µs"], [1e6, "ms"], [1e9, "s"]];

/** Nanoseconds in three digits and a unit: 870 µs, 41.9 ms, 1.25 s, 3m 20s. */
export function duration(ns) {
  if (ns < 0) return "−" + duration(-ns);
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns >= 60e9) return minutes(Math.round(ns / 1e9));
  for (const [size, name] of UNITS.slice(1)) {
    if (ns / size < 999.5 || name === "s") return `${threeDigits(ns / size)} ${name}`;
  }
}

function threeDigits(value) {
  if (value < 9.995) return value.toFixed(2);
  return value < 99.95 ? value.toFixed(1) : value.toFixed(0);
}

function minutes(seconds) {
  const pad = (n) => String(n).padStart(2, "0");
  const m = Math.floor(seconds / 60);
  return m < 60 ? `${m}m ${pad(seconds % 60)}s` : `${Math.floor(m / 60)}h ${pad(m % 60)}m`;
}

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export function bytes(count) {
  return count < 1 << 20 ? `${Math.ceil(count / 1024)} kB` : `${(count / (1 << 20)).toFixed(1)} MB`;
}

/** A moment in the local time of day, to the second or the millisecond. */
export function clock(ns, { exact = true } = {}) {
  const date = new Date(ns / 1e6);
  const pad = (n, width = 2) => String(n).padStart(width, "0");
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return exact ? `${time}.${pad(date.getMilliseconds(), 3)}` : time;
}

/** Ticks of a time axis from `from` to `to`: steps of 1, 2 or 5 of a unit, about one every `gap` pixels. */
export function ticks(from, to, width, gap = 90) {
  const least = Math.max(((to - from) * gap) / Math.max(width, 1), 1);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
  const [unit, name] = [...UNITS].reverse().find(([size]) => step >= size || size === 1);
  const places = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    found.push([at, `${(at / unit).toFixed(places)} ${name}`]);
  }
  return found;
}
