// The page: the list on the left, a trace beside it, and what holds them together.

import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { Header } from "./header.js";
import { Help } from "./help.js";
import { useKeys } from "./keys.js";
import { TraceList, useList } from "./list.js";
import { parse, useRoute } from "./route.js";
import { startTheme, toggleTheme } from "./theme.js";
import { Trace } from "./trace.js";

function App() {
  const [route, go] = useRoute();
  const [help, setHelp] = useState(false);
  const [listShown, showList] = useState(false); // in a narrow window only one of the two has room
  const list = useList(route.filter);
  const filterBox = useRef();
  const [said, say] = useSaid();

  useEffect(() => {
    // The address may have changed a moment ago, and nobody told us yet.
    if (!parse(location.hash).trace && list.traces.length) go({ trace: list.traces[0].trace_id }, { quiet: true });
  }, [route.trace, list.traces.length > 0]);

  const open = (trace) => {
    showList(false);
    go({ trace, span: null, window: null });
  };
  const step = (by) => {
    const at = list.traces.findIndex((one) => one.trace_id === route.trace);
    const next = list.traces[at < 0 ? 0 : Math.min(Math.max(at + by, 0), list.traces.length - 1)];
    if (next) open(next.trace_id);
  };
  useKeys({
    "/": () => filterBox.current.focus(),
    j: () => step(1),
    k: () => step(-1),
    t: toggleTheme,
    l: () => showList(!listShown),
    "?": () => setHelp(!help),
    Escape: () => setHelp(false),
  });
  const take = async (file) => {
    try {
      const { traces } = await api.importFile(file);
      if (traces.length) open(traces[0]);
    } catch (error) {
      say(error.message);
    }
  };
  const live = list.traces.find((one) => one.trace_id === route.trace);
  return html`
    <div class=${`app${listShown ? " list-shown" : ""}`} onDragOver=${(event) => event.preventDefault()}
         onDrop=${(event) => { event.preventDefault(); if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); }}>
      <${Header} list=${list} filter=${route.filter} box=${filterBox} onFilter=${(filter) => go({ filter })}
                 onHelp=${() => setHelp(true)} onImport=${take} onList=${() => showList(!listShown)} />
      <${TraceList} list=${list} current=${route.trace} onOpen=${open} />
      <${Trace} key=${route.trace} route=${route} go=${go} version=${live ? live.span_count : 0} say=${say}
                waiting=${!list.traces.length} />
      ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
      ${said && html`<div class="said" role="status">${said}</div>`}
    </div>`;
}

/** A line that is gone after a few seconds. */
function useSaid() {
  const [said, say] = useState("");
  useEffect(() => {
    const timer = said && setTimeout(() => say(""), 4000);
    return () => clearTimeout(timer);
  }, [said]);
  return [said, say];
}

startTheme();
render(html`<${App} />`, document.body);
