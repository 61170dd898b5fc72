// The list of traces, as they come.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { clock, duration, plural } from "./format.js";
import { edgeColor } from "./theme.js";

const MOST = 500; // lines; older ones are found with the filter

/** The list for a filter, live: traces, counters, whether the agent answers, and what is wrong with the filter. */
export function useList(filter) {
  const [traces, setTraces] = useState([]);
  const [counters, setCounters] = useState({});
  const [online, setOnline] = useState(true);
  const [problem, setProblem] = useState("");
  const [rate, setRate] = useState(0);
  const before = useRef(null);

  const count = (next) => {
    const now = performance.now();
    const last = before.current;
    if (!last || now - last.at > 900) {
      if (last) setRate(Math.max(0, Math.round(((next.spans - last.spans) * 1000) / (now - last.at))));
      before.current = { at: now, spans: next.spans };
    }
    setCounters(next);
  };
  useEffect(() => {
    let stop = () => {};
    let left = false;
    const start = () => {
      if (left) return;
      stop = api.watch(filter, {
        onState: setOnline,
        onList: (news) => { setTraces(news.traces); count(news.counters); },
        onChange: (news) => { setTraces((old) => merged(old, news)); count(news.counters); },
      });
    };
    if (filter) {
      api.checkFilter(filter).then(() => { setProblem(""); start(); }, (error) => !left && setProblem(error.message));
    } else {
      setProblem("");
      start();
    }
    return () => { left = true; stop(); };
  }, [filter]);
  return { traces, counters, online, problem, rate };
}

/** Those that are known stay where they are; new ones come on top. */
function merged(old, { traces, gone }) {
  if (!traces.length && !gone.length) return old;
  const news = new Map(traces.map((one) => [one.trace_id, one]));
  const away = new Set(gone);
  const kept = old.filter((one) => !away.has(one.trace_id)).map((one) => {
    const next = news.get(one.trace_id);
    news.delete(one.trace_id);
    return next || one;
  });
  return [...[...news.values()].reverse(), ...kept].slice(0, MOST);
}

/** How long it took, beside the longest, and where its time went. */
function Length({ one, longest }) {
  const shares = one.shares?.length ? one.shares : [{ kind: "code", service: one.service, time: 1 }];
  return html`
    <span class="length" style=${{ width: `${Math.max(2, (one.duration / longest) * 100)}%` }}>
      ${shares.map(({ kind, service, time }) => html`
        <i class=${kind} style=${{ flexGrow: time, ...(kind === "code" ? { background: edgeColor(service) } : {}) }}></i>`)}
    </span>`;
}

export function TraceList({ list, current, onOpen }) {
  const { traces, problem } = list;
  const longest = traces.reduce((most, one) => Math.max(most, one.duration), 1);
  const line = useRef();
  useEffect(() => line.current?.scrollIntoView({ block: "nearest" }), [current]);
  return html`
    <nav class="list" aria-label="traces">
      ${!traces.length && html`<p class="muted empty">${problem ? "" : "No traces yet."}</p>`}
      ${traces.map((one) => html`
        <a key=${one.trace_id} ref=${one.trace_id === current ? line : undefined} href=${`#/t/${one.trace_id}`}
           class=${`line${one.trace_id === current ? " current" : ""}${one.errors ? " failed" : ""}`}
           onClick=${(event) => { event.preventDefault(); onOpen(one.trace_id); }}>
          <span class="title"><b>${one.resource || one.name || "…"}</b><span class="time">${duration(one.duration)}</span></span>
          <span class="about">
            <span class="services">${one.services.map((name) => html`<i style=${{ background: edgeColor(name) }} title=${name}></i>`)}
              ${one.service}</span>
            ${one.errors > 0 && html`<span class="errors">${plural(one.errors, "error")}</span>`}
            ${one.findings > (one.errors ? 1 : 0) && html`<span class="warn" title="see them beside the trace">⚠ ${one.findings}</span>`}
            ${one.sampled_out && html`<span title="a sampling rule decided against it: Datadog would not keep it">sampled out</span>`}
            <span class="when">${plural(one.span_count, "span")} · ${clock(one.start, { exact: false })}</span>
          </span>
          <${Length} one=${one} longest=${longest} />
        </a>`)}
    </nav>`;
}
