// The page before the first trace.

import { html } from "./vendor/htm-preact.js";

export function Welcome({ waiting }) {
  const { origin } = location;
  return html`
    <main class="trace welcome">
      ${waiting && html`
        <h1>Waiting for traces</h1>
        <p>Run a program that any Datadog tracer traces, in any language:</p>
        <pre>DD_TRACE_AGENT_URL=${origin} ddtrace-run python app.py</pre>
        <p>or one with OpenTelemetry:</p>
        <pre>OTEL_EXPORTER_OTLP_ENDPOINT=${origin} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf opentelemetry-instrument python app.py</pre>
        <p class="muted">They show up here as they arrive. Nothing leaves this machine.</p>`}
    </main>`;
}
