// The top of the page: the state of the agent, and the filter.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { bytes, plural } from "./format.js";
import { toggleTheme } from "./theme.js";

export function Header({ list, filter, box, onFilter, onHelp, onImport, onList }) {
  return html`
    <header>
      <button class="plain only-narrow" onClick=${onList} title="the list of traces (l)">☰</button>
      <b class="brand">asynctrace</b>
      <${State} list=${list} />
      <${Filter} filter=${filter} box=${box} problem=${list.problem} onFilter=${onFilter} />
      <${Import} onImport=${onImport} />
      <button class="plain" onClick=${toggleTheme} title="dark or light (t)">◐</button>
      <button class="plain" onClick=${onHelp} title="keys and filters (?)">?</button>
    </header>`;
}

const LOST = ["dropped_payloads", "bad_payloads", "dropped_spans", "bad_spans", "failed_forwards"];

function State({ list }) {
  const { counters, online, rate } = list;
  if (!online) return html`<span class="pill bad" role="status">○ agent not reachable</span>`;
  const lost = LOST.reduce((sum, name) => sum + (counters[name] || 0), 0);
  const told = Object.entries(counters).filter(([, count]) => typeof count === "number")
    .map(([name, count]) => `${name.replace(/_/g, " ")}: ${count}`).join("\n");
  return html`
    <span class=${`pill ${lost ? "warn" : "good"}`} title=${told} role="status">
      ● live<span class="not-tiny"> · ${rate} spans/s</span> · ${lost} dropped
    </span>
    ${counters.held && html`<span class="pill wide-only" title="held of what may be held; the oldest make room">
      ${plural(counters.held.traces, "trace")} · ${bytes(counters.held.bytes)} of ${bytes(counters.held.max_bytes)}
    </span>`}`;
}

function Filter({ filter, box, problem, onFilter }) {
  const [text, setText] = useState(filter);
  const timer = useRef();
  useEffect(() => setText(filter), [filter]);
  const typed = (value) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onFilter(value), 250);
  };
  const key = (event) => {
    if (event.key === "Enter") onFilter(text);
    if (event.key === "Escape") {
      if (text) typed("");
      event.target.blur();
    }
  };
  return html`
    <div class="filter">
      <input ref=${box} type="search" spellcheck="false" autocomplete="off" aria-label="filter of traces"
             placeholder='service:shop duration:>100ms error:true @tag:value   ( / )' value=${text}
             class=${problem ? "bad" : ""} onInput=${(event) => typed(event.target.value)} onKeyDown=${key} />
      ${problem && html`<div class="problem" role="alert">${problem}</div>`}
    </div>`;
}

function Import({ onImport }) {
  const input = useRef();
  return html`
    <input ref=${input} type="file" accept=".json,application/json" hidden aria-label="import a trace"
           onChange=${(event) => event.target.files[0] && onImport(event.target.files[0])} />
    <button class="plain wide-only" onClick=${() => input.current.click()}
            title="open a trace that was exported as JSON; a file may be dropped on the page, too">Import</button>`;
}
