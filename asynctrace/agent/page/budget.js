// Where the critical path's time went, in one bar; and what the colours mean.

import { html } from "./vendor/htm-preact.js";
import { duration } from "./format.js";
import { shareColor } from "./theme.js";

export function Budget({ trace, analysis }) {
  const shares = (analysis ? analysis.shares : []).filter((share) => share.time > trace.extent * 0.002);
  const whole = shares.reduce((sum, share) => sum + share.time, 0);
  const said = (share) => `${share.label} ${duration(share.time)}`;
  const hasRoom = (share) => (share.time / whole) * 900 > said(share).length * 6.5;
  return html`
    <div class="budget" title="where the time of the critical path went, in the order of first appearance">
      ${shares.map((share) => html`
        <div key=${share.kind + share.service} class=${share.kind}
             style=${{ flexGrow: share.time, ...(share.kind === "code" ? { background: shareColor(share.service) } : {}) }}
             title=${`${share.label}${share.kind !== "code" && share.service ? `, ${share.service}` : ""}: ${duration(share.time)}`}>
          ${hasRoom(share) && said(share)}
        </div>`)}
    </div>`;
}

const MEANINGS = [
  ["pool", "waiting for a pool"], ["queue", "in a queue"], ["buffer", "prefetched"], ["dns", "DNS"],
  ["connect", "connecting"], ["answer", "waiting for the first byte"], ["body", "reading the body"],
];

/** Only what is there to be seen. */
export function Legend({ trace, path }) {
  return html`
    <div class="legend">
      ${MEANINGS.filter(([kind]) => trace.partKinds.has(kind)).map(([kind, said]) => html`<span><i class=${kind}></i>${said}</span>`)}
      ${path && html`<span><i class="path"></i>critical path</span>`}
    </div>`;
}
