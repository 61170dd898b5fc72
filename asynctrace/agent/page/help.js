// What the keys do, and what a filter may say.

import { html } from "./vendor/htm-preact.js";

const KEYS = [
  ["/", "filter the list"], ["j k", "next, previous trace"], ["f w", "flame graph, waterfall"],
  ["↓ ↑", "first child and parent; in the waterfall next and previous row"],
  ["← →", "siblings; in the waterfall fold and unfold"], ["Enter", "zoom to the span"],
  ["+ − 0", "zoom in, out, the whole trace"], ["e", "next error"], ["c", "critical path"], ["y", "copy the link"],
  ["t", "dark or light"], ["l", "the list, in a narrow window"], ["Esc", "back"],
];
const FILTERS = [
  ["service:shop,worker", "a span of one of these"], ['resource:"GET /cart*"', "with * for anything"],
  ["duration:>100ms", "of the trace; also 10..20ms, <1s"], ["error:true", "or a type: error:*Timeout*"],
  ["status:5xx", "HTTP status; also ok, error, cancelled"], ["@db.name:shop", "a tag; numbers also @size:>5"],
  ["wait.pool:>10ms", "also wait.queue:"], ["spans:>100", "also errors:, span.duration:, name:, type:, trace:"],
  ["-service:worker", "none of it"], ["timeout", "a word, anywhere"],
];

export function Help({ onClose }) {
  const table = (rows) => html`<dl>${rows.map(([left, right]) => html`<dt><kbd>${left}</kbd></dt><dd>${right}</dd>`)}</dl>`;
  return html`
    <div class="veil" onClick=${onClose}>
      <div class="help" role="dialog" aria-label="help" onClick=${(event) => event.stopPropagation()}>
        <button class="plain close" onClick=${onClose} title="close (Esc)">✕</button>
        <h2>Keys</h2>${table(KEYS)}
        <p class="muted">Wheel scrolls, Ctrl+wheel zooms, Shift+wheel and dragging move in time, a double click zooms to a span.</p>
        <h2>Filters</h2>${table(FILTERS)}
        <p class="muted">All terms must hold; those about spans, of one and the same span. Click a tag to copy a filter for it.</p>
      </div>
    </div>`;
}
