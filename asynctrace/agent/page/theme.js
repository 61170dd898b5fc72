// Dark or light, and the colour of each service: the same one in every list, chart and legend.

const HUES = [207, 162, 322, 88, 232, 186, 52, 140, 345, 20];
const taken = new Map();

/** The hue of a service: the same after a reload, and its own as long as there are hues left. */
export function hue(service) {
  if (!taken.has(service)) {
    let index = 0;
    for (const char of service) index = (index * 31 + char.codePointAt(0)) % 997;
    const used = new Set(taken.values());
    for (let tries = 0; tries < HUES.length && used.has(HUES[index % HUES.length]); tries++) index++;
    taken.set(service, HUES[index % HUES.length]);
  }
  return taken.get(service);
}

const chosen = () => localStorage.getItem("asynctrace.theme");
const preferred = () => (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");

export const theme = () => document.documentElement.dataset.theme;

export function startTheme() {
  const apply = () => {
    document.documentElement.dataset.theme = chosen() || preferred();
    palette = null;
    dispatchEvent(new Event("themechange"));
  };
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", apply);
  addEventListener("storage", apply);
  apply();
}

export function toggleTheme() {
  localStorage.setItem("asynctrace.theme", theme() === "dark" ? "light" : "dark");
  dispatchEvent(new Event("storage"));
}

let palette = null;

/** The style sheet's colours, for the canvas. */
export function colors() {
  if (!palette) {
    const style = getComputedStyle(document.documentElement);
    const names = [
      "bg", "panel", "line", "text", "muted", "faint", "select", "error", "path",
      "pool", "queue", "buffer", "answer", "dns", "connect", "body", "gap", "code", "database", "call", "publish",
      "bar-s", "bar-l", "edge-l", "bar-text",
    ];
    palette = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }
  return palette;
}

export function barColor(service) {
  const { "bar-s": s, "bar-l": l } = colors();
  return `hsl(${hue(service)} ${s} ${l})`;
}

export function edgeColor(service) {
  const { "bar-s": s, "edge-l": l } = colors();
  return `hsl(${hue(service)} ${s} ${l})`;
}
