// Dark or light, and the colour of each service: the same one in every list, chart and legend.

// Apart from those that mean something of their own: red, orange, yellow, purple.
const HUES = [207, 164, 232, 96, 186, 312, 130, 22, 250, 76];
const REMEMBERED = 200; // services
const KEY = "asynctrace.services";
const known = new Map(remembered());

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || [];
  } catch {
    return [];
  }
}

/** The hue of a service: the next free one when it is first seen, the same from then on. */
export function hue(service) {
  if (!known.has(service)) {
    known.set(service, HUES[known.size % HUES.length]);
    localStorage.setItem(KEY, JSON.stringify([...known].slice(0, REMEMBERED)));
  }
  return known.get(service);
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
      "bar-s", "bar-l", "edge-l", "share-l", "bar-text",
    ];
    palette = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }
  return palette;
}

const shade = (name) => (service) => `hsl(${hue(service)} ${colors()["bar-s"]} ${colors()[name]})`;

export const barColor = shade("bar-l");
export const edgeColor = shade("edge-l");
export const shareColor = shade("share-l"); // dark text can be read on it
