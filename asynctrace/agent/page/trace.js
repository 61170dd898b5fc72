// One trace: what it was, where its time went, its chart, and what is beside it.

import { html, useCallback, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { Budget, Legend } from "./budget.js";
import { around, Chart } from "./chart.js";
import { copyLink } from "./copy.js";
import { Detail } from "./detail.js";
import { Findings } from "./findings.js";
import { clock, duration, plural } from "./format.js";
import { flame } from "./layout_flame.js";
import { waterfall } from "./layout_rows.js";
import { model } from "./model.js";
import { edgeColor } from "./theme.js";
import { useTraceKeys } from "./trace_keys.js";
import { Welcome } from "./welcome.js";

const PAUSE = 300; // milliseconds between two looks at a trace that grows

export function Trace({ route, go, version, say, waiting }) {
  const { trace, analysis, problem } = useTrace(route.trace, version);
  const [marked, setMarked] = useState(true);
  const [closedIds, setClosedIds] = useState(() => new Set()); // ids: numbers change when the trace grows
  const closed = useMemo(() => new Set(trace ? [...closedIds].map((id) => trace.numberOf.get(id)) : []), [trace, closedIds]);
  const [words, setWords] = useState("");
  const hits = useHits(trace, words);
  const gutter = Math.min(360, Math.max(140, innerWidth * 0.22));
  const layout = useMemo(
    () => trace && (route.view === "flame" ? flame(trace) : waterfall(trace, closed, gutter)),
    [trace, route.view, closed, gutter],
  );
  const selected = trace && route.span ? trace.numberOf.get(route.span) ?? -1 : -1;
  const select = useCallback((i) => trace && go({ span: i < 0 ? null : trace.id[i] }, { quiet: true }), [trace]);
  const setWindow = useCallback((window) => go({ window }, { quiet: true }), []);
  const toggle = (i) => setClosedIds((old) => {
    const next = new Set(old);
    if (!next.delete(trace.id[i])) next.add(trace.id[i]);
    return next;
  });
  const nextHit = () => {
    const found = hits ? [...hits.numbers] : [];
    if (found.length) select(found.find((i) => i > selected) ?? found[0]);
  };
  useTraceKeys({ trace, layout, selected, route, closed, select, toggle, go, setMarked, say });

  if (!route.trace) return html`<${Welcome} waiting=${waiting} />`;
  if (problem) return html`<main class="trace"><p class="problem" role="alert">${problem}</p></main>`;
  if (!trace) return html`<main class="trace"><p class="muted">…</p></main>`;
  const path = marked && analysis ? numbered(trace, analysis.path) : null;
  return html`
    <main class="trace">
      <${Title} trace=${trace} analysis=${analysis} say=${say} />
      <${Budget} trace=${trace} analysis=${analysis} />
      <div class="bar">
        <div class="choice" role="group" aria-label="view">
          ${["flame", "waterfall"].map((view) => html`
            <button class=${route.view === view ? "on" : ""} aria-pressed=${route.view === view}
                    onClick=${() => go({ view })} title=${`${view} (${view[0]})`}>${view === "flame" ? "Flame graph" : "Waterfall"}</button>`)}
        </div>
        <button class=${marked ? "on" : ""} aria-pressed=${marked} onClick=${() => setMarked(!marked)} title="critical path (c)">Critical path</button>
        ${route.window && html`<button onClick=${() => setWindow(null)} title="the whole trace (0)">Whole trace</button>`}
        <input type="search" class="within" placeholder="find spans  ( Enter: next )" value=${words}
               aria-label="find spans in this trace" onInput=${(event) => setWords(event.target.value)}
               onKeyDown=${(event) => {
                 if (event.key === "Escape") { setWords(""); event.target.blur(); }
                 if (event.key === "Enter") nextHit();
               }} />
        ${hits && html`<span class="muted">${hits.problem || plural(hits.numbers.size, "span")}</span>`}
        <${Legend} trace=${trace} path=${path} />
      </div>
      <${Chart} trace=${trace} layout=${layout} selected=${selected} path=${path} closed=${closed}
                hits=${hits && !hits.problem ? hits.numbers : null}
                window=${route.window} onSelect=${select} onWindow=${setWindow} onToggle=${toggle} />
    </main>
    <aside class="side">
      <${Findings} trace=${trace} analysis=${analysis} onSelect=${(id) => select(trace.numberOf.get(id) ?? -1)} />
      <${Detail} trace=${trace} selected=${selected} onSelect=${(id) => select(trace.numberOf.get(id) ?? -1)}
                 onZoom=${(i) => setWindow(around(trace, i))} say=${say} />
    </aside>`;
}

/** The steps of the path with numbers of spans instead of ids. */
function numbered(trace, path) {
  return path.map(([id, start, end, kind]) => ({ span: trace.numberOf.get(id) ?? -1, start, end, kind }))
    .filter((step) => step.span >= 0);
}

/** A trace and its analysis; fetched again when it has grown. */
function useTrace(id, version) {
  const [found, setFound] = useState({});
  const last = useRef(0);
  useEffect(() => {
    if (!id || found.trace?.count === version) return undefined; // the list may have come after the trace
    let left = false;
    const load = async () => {
      last.current = performance.now();
      try {
        const data = await api.columns(id);
        if (left) return;
        const trace = model(data);
        setFound((old) => ({ ...old, trace, problem: "" }));
        const analysis = await api.analysis(id);
        if (!left) setFound((old) => ({ ...old, analysis }));
      } catch (error) {
        if (!left) setFound({ problem: `${error.message}. It may have made room for newer ones.` });
      }
    };
    const timer = setTimeout(load, Math.max(0, last.current + PAUSE - performance.now()));
    return () => { left = true; clearTimeout(timer); };
  }, [id, version]);
  return found;
}

/** The numbers of the spans that the words in the box mean, in order; null without words. */
function useHits(trace, words) {
  const [hits, setHits] = useState(null);
  useEffect(() => {
    if (!trace || !words.trim()) { setHits(null); return undefined; }
    let left = false;
    const found = ({ spans }) => spans.map((id) => trace.numberOf.get(id)).filter((i) => i !== undefined).sort((a, b) => a - b);
    const timer = setTimeout(() => api.search(trace.trace_id, words).then(
      (answer) => !left && setHits({ numbers: new Set(found(answer)) }),
      (error) => !left && setHits({ numbers: new Set(), problem: error.message }),
    ), 150);
    return () => { left = true; clearTimeout(timer); };
  }, [trace, words]);
  return hits;
}

function Title({ trace, analysis, say }) {
  const facts = [
    duration(trace.extent), processes(trace), plural(trace.count, "span"),
    trace.errors.length && plural(trace.errors.length, "error"),
    analysis && analysis.findings.length && plural(analysis.findings.length, "finding"),
  ].filter(Boolean);
  return html`
    <div class="title-line">
      <h1>${trace.resource || trace.name || "trace"} <span class="muted">${facts.join(" · ")}</span></h1>
      <div class="sub">
        ${trace.services.map(([name, count]) => html`<span class="service"><i style=${{ background: edgeColor(name) }}></i>${name} ${count}</span>`)}
        <span class="muted">${clock(trace.began)}</span>
        <span class="muted id" title="trace id">${trace.trace_id}</span>
        <button class="link" onClick=${() => copyLink(say)} title="copy the link (y)">copy link</button>
        ${["json", "speedscope", "perfetto"].map((format) => html`
          <a class="link" href=${api.exportUrl(trace.trace_id, format)} download>${format === "json" ? "export .json" : format}</a>`)}
        ${trace.sampled_out && html`<span class="warn">sampled out: Datadog would not keep this trace</span>`}
        ${trace.dropped_spans > 0 && html`<span class="warn">${plural(trace.dropped_spans, "span")} dropped: it filled the store</span>`}
      </div>
    </div>`;
}

function processes(trace) {
  const count = new Set(trace.lanes.map((lane) => lane.process || lane.service)).size;
  return `${count} process${count === 1 ? "" : "es"}`;
}
