// The agent's read API. Every address is on the host the page came from.

const API = "/asynctrace/v1";

/** An answer's JSON; throws an Error with what the agent says is wrong. */
async function get(path, options) {
  const reply = await fetch(API + path, options);
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error || `the agent answered ${reply.status}`);
  return answer;
}

export const checkFilter = (text) => get(`/traces?limit=0&q=${encodeURIComponent(text)}`);
export const columns = (trace) => get(`/traces/${trace}/columns`);
export const analysis = (trace) => get(`/traces/${trace}/analysis`);
export const span = (trace, id) => get(`/traces/${trace}/spans/${id}`);
export const search = (trace, text) => get(`/traces/${trace}/search?q=${encodeURIComponent(text)}`);
export const importFile = (file) => get("/import", { method: "POST", body: file });
export const exportUrl = (trace, format) => `${API}/traces/${trace}/export?format=${format}`;

/**
 * The list, live: `onList` is called with the newest traces, `onChange` with news, `onState` with whether the
 * agent can be reached. Returns the way to stop.
 */
export function watch(text, { onList, onChange, onState }) {
  const source = new EventSource(`${API}/events?q=${encodeURIComponent(text)}`);
  source.addEventListener("open", () => onState(true));
  source.addEventListener("error", () => onState(false));
  source.addEventListener("list", (event) => onList(JSON.parse(event.data)));
  source.addEventListener("changed", (event) => onChange(JSON.parse(event.data)));
  return () => source.close();
}
