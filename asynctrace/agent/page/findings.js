// What is worth a look; a click leads to the span it is about.

import { html } from "./vendor/htm-preact.js";
import { duration } from "./format.js";

export function Findings({ analysis, onSelect }) {
  if (!analysis) return null;
  return html`
    <section class="findings" aria-label="findings">
      <h2>Findings</h2>
      ${!analysis.findings.length && html`<p class="muted">Nothing that stands out.</p>`}
      ${analysis.findings.map((one) => html`
        <button class=${`finding ${one.kind}`} onClick=${() => onSelect(one.spans[0])}>
          <b>${one.title}${one.time > 0 && html`<span class="won" title="of the critical path">−${duration(one.time)}</span>`}</b>
          <span>${one.text}</span>
        </button>`)}
    </section>`;
}
