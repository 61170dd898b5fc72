// What is shown is in the address: a copied link shows the same to whoever opens it.
//
//   #/t/6b04...?span=123&view=waterfall&at=1000-2000&q=error:true

import { useEffect, useState } from "./vendor/htm-preact.js";

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const found = new URLSearchParams(query);
  const at = /^(\d+)-(\d+)$/.exec(found.get("at") || "");
  return {
    trace: /^\/t\/(\w+)/.exec(path)?.[1] ?? null,
    span: found.get("span"),
    view: found.get("view") === "waterfall" ? "waterfall" : "flame",
    window: at && +at[1] < +at[2] ? [+at[1], +at[2]] : null,
    filter: found.get("q") || "",
  };
}

export function format(route) {
  const query = new URLSearchParams();
  if (route.span) query.set("span", route.span);
  if (route.view === "waterfall") query.set("view", route.view);
  if (route.window) query.set("at", route.window.map(Math.round).join("-"));
  if (route.filter) query.set("q", route.filter);
  const text = query.toString();
  return `#/${route.trace ? `t/${route.trace}` : ""}${text ? `?${text}` : ""}`;
}

/** The route, and `go(change, {quiet})`: quiet changes leave no entry in the history. */
export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parse(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const go = (change, { quiet = false } = {}) => {
    const next = { ...parse(location.hash), ...change };
    const hash = format(next);
    if (hash === location.hash) return;
    history[quiet ? "replaceState" : "pushState"](null, "", hash);
    setRoute(next);
  };
  return [route, go];
}
