// The selected span: what it was, its tags, links both ways, events, and its error with the stack.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { copy } from "./copy.js";
import { duration } from "./format.js";
import { frames, source } from "./source.js";
import { edgeColor } from "./theme.js";

const TOLD_ABOVE = new Set([
  "error.type", "error.message", "error.msg", "error.stack", "events", "async.outcome", "_dd.span_links", "_dd.p.tid",
]);

export function Detail({ trace, selected, onSelect, onZoom, say }) {
  const span = useSpan(trace, selected);
  if (selected < 0) return html`<section class="detail"><h2>Span</h2><p class="muted">Choose a bar, or press ↓.</p></section>`;
  if (!span) return html`<section class="detail"><h2>Span</h2></section>`;
  const parent = trace.parent[selected];
  return html`
    <section class="detail" aria-label="selected span">
      <h2>Span</h2>
      <h3 style=${{ borderColor: edgeColor(span.service) }}>${span.resource || span.name}</h3>
      <dl>
        <${Row} name="operation" value=${span.name} />
        <${Row} name="service" value=${span.service} />
        <${Row} name="duration" value=${duration(span.duration)} />
        <${Row} name="starts at" value=${duration(trace.start[selected])} />
        ${(trace.partsOf.get(selected) || []).map((part) => html`<${Row} name=${part.label} value=${duration(part.duration)} kind=${part.kind} />`)}
        <${Row} name="outcome" value=${span.meta["async.outcome"] || (span.error ? "error" : "")} kind=${span.error ? "error" : ""} />
        <${Row} name="source" value=${source(span) && html`<${Source} place=${source(span)} />`} />
      </dl>
      <p class="doors">
        ${parent >= 0 && html`<button class="link" onClick=${() => onSelect(trace.id[parent])}>parent</button>`}
        <button class="link" onClick=${() => onZoom(selected)}>zoom to it</button>
      </p>
      <${Failure} span=${span} />
      <${Links} trace=${trace} span=${span} onSelect=${onSelect} />
      <${Events} span=${span} />
      <${Tags} span=${span} say=${say} />
    </section>`;
}

function useSpan(trace, selected) {
  const [span, setSpan] = useState(null);
  const id = trace.id[selected];
  useEffect(() => {
    let left = false;
    if (id) api.span(trace.trace_id, id).then((found) => !left && setSpan(found), () => !left && setSpan(null));
    return () => { left = true; };
  }, [trace, id]);
  return span && span.span_id === id ? span : null;
}

function Row({ name, value, kind = "" }) {
  return value ? html`<dt>${name}</dt><dd class=${kind}>${value}</dd>` : null;
}

function Source({ place }) {
  return html`<a class="source" href=${place.editor} title="open in the editor">${place.text}</a>`;
}

function Failure({ span }) {
  if (!span.error) return null;
  const { meta } = span;
  const stack = frames(meta["error.stack"] || "");
  return html`
    <div class="failure">
      <b>${meta["error.type"] || "error"}</b>
      <p>${meta["error.message"] || meta["error.msg"]}</p>
      ${stack.length > 0 && html`
        <details open=${stack.length < 30}>
          <summary>stack</summary>
          <pre>${stack.map((line) => (line.place ? html`${line.before}<${Source} place=${line.place} />${line.after}\n` : `${line.before}\n`))}</pre>
        </details>`}
    </div>`;
}

function Links({ trace, span, onSelect }) {
  const all = [
    ...span.links.map((link) => ({ ...link, way: "→ to" })),
    ...span.linked_from.map((link) => ({ ...link, way: "← from" })),
  ];
  if (!all.length) return null;
  return html`
    <h4>Links</h4>
    <ul class="links">
      ${all.map((link) => html`
        <li>
          ${link.way}${" "}
          ${link.trace_id === trace.trace_id
            ? html`<button class="link" onClick=${() => onSelect(link.span_id)}>span ${link.span_id}</button>`
            : html`<a href=${`#/t/${link.trace_id}?span=${link.span_id}`}>trace ${link.trace_id.slice(0, 8)}…${link.trace_id.slice(-6)}</a>`}
          ${Object.entries(link.attributes || {}).map(([key, value]) => html` <span class="muted">${key}=${value}</span>`)}
        </li>`)}
    </ul>`;
}

function Events({ span }) {
  const events = told(span.meta.events);
  if (!events.length) return null;
  return html`
    <h4>Events</h4>
    <ul class="events">
      ${events.map((event) => html`
        <li>
          <b>${String(event.name ?? "event")}</b>
          ${event.time_unix_nano ? html` <span class="muted">at ${duration(event.time_unix_nano - span.start)}</span>` : ""}
          <dl>${Object.entries(event.attributes || {}).map(([key, value]) => html`<${Row} name=${key} value=${String(value)} />`)}</dl>
        </li>`)}
    </ul>`;
}

/** The events in a tag; whoever sent it may have written anything. */
function told(tag) {
  if (!tag) return [];
  try {
    const events = JSON.parse(tag);
    if (Array.isArray(events)) return events.filter((event) => event && typeof event === "object");
  } catch { /* then it is no JSON */ }
  return [{ name: tag }];
}

function Tags({ span, say }) {
  const tags = Object.entries({ ...span.meta, ...span.metrics }).filter(([key]) => !TOLD_ABOVE.has(key));
  const own = tags.filter(([key]) => !key.startsWith("_")).sort();
  const inner = tags.filter(([key]) => key.startsWith("_")).sort();
  const copyFilter = (key, value) => {
    const term = `@${key}:${/[\s"]/.test(value) ? `"${value}"` : value}`;
    copy(term, say, "A filter for this tag is copied.");
  };
  const rows = (list) => list.map(([key, value]) => html`
    <dt>${key}</dt><dd title="click: copy a filter" onClick=${() => copyFilter(key, String(value))}>${String(value)}</dd>`);
  return html`
    <h4>Tags</h4>
    <dl class="tags">${rows(own)}</dl>
    ${inner.length > 0 && html`<details><summary>${inner.length} of the tracer's own</summary><dl class="tags">${rows(inner)}</dl></details>`}
    <dl class="tags"><dt>span id</dt><dd>${span.span_id}</dd></dl>`;
}
