// The chart: a canvas that shows a layout, and what the mouse does with it.
//
// Wheel scrolls; with Ctrl (or a pinch) it zooms where the mouse is, with Shift it moves in time. Dragging moves
// in time and scrolls; a double click fills the width with a span.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { AXIS, draw } from "./draw.js";
import { duration } from "./format.js";
import { ROW } from "./layout_flame.js";
import { drawnStart } from "./model.js";

const LEAST_WINDOW = 100; // nanoseconds
const CLICK = 4; // pixels that a mouse may move in a click

export function Chart(props) {
  const { trace, layout, selected, hits, path, closed, onSelect, onWindow, onToggle } = props;
  const [hover, setHover] = useState(null);
  const scroller = useRef();
  const canvas = useRef();
  const now = useRef({ scroll: 0, width: 0, height: 0 });
  const hovered = hover && hover.span < trace.count ? hover.span : -1;
  now.current = { ...now.current, trace, layout, selected, hits, path, closed, hovered };
  const [from, to] = props.window || [0, trace.extent * 1.01];
  Object.assign(now.current, { from, to });
  const paint = usePaint(canvas, now);

  useLayoutEffect(paint);
  useEffect(() => follow(scroller.current, canvas.current, now, paint), []);
  useEffect(() => reveal(scroller.current, now.current), [selected, layout]);
  useEffect(() => {
    setHover(null); // its number is another span's now
    return listen(scroller.current, now, { paint, onWindow, setHover });
  }, [trace]);

  const spanUnder = (event) => spanAt(now.current, at(scroller.current, event));
  const click = (event) => {
    if (scroller.current.dragged) return;
    const { x, y } = at(scroller.current, event);
    const i = spanAt(now.current, { x, y });
    if (i >= 0 && x < layout.gutter && x < 22 + Math.min(trace.depth[i], 24) * 12) onToggle(i);
    else onSelect(i);
  };
  const zoom = (event) => {
    const i = spanUnder(event);
    onWindow(i < 0 ? null : around(trace, i));
  };
  return html`
    <div class="chart" ref=${scroller} tabindex="0" role="img" aria-label="Chart of the trace"
         onClick=${click} onDblClick=${zoom}>
      <canvas ref=${canvas}></canvas>
      <div class="chart-extent" style=${{ height: `${layout.height + AXIS + ROW}px` }}></div>
      ${hovered >= 0 && html`<${Tooltip} trace=${trace} hover=${hover} />`}
    </div>`;
}

/** A window of time around a span. */
export function around(trace, i) {
  const start = drawnStart(trace, i);
  const margin = Math.max((trace.end[i] - start) * 0.05, LEAST_WINDOW);
  return [Math.max(start - margin, 0), trace.end[i] + margin];
}

/** Paints in the next frame, however often it is asked before. */
function usePaint(canvas, now) {
  const waiting = useRef(0);
  return () => {
    if (waiting.current) return;
    waiting.current = requestAnimationFrame(() => {
      waiting.current = 0;
      const { width, height } = now.current;
      if (!canvas.current || !width) return;
      const scale = devicePixelRatio || 1;
      if (canvas.current.width !== Math.round(width * scale) || canvas.current.height !== Math.round(height * scale)) {
        canvas.current.width = Math.round(width * scale);
        canvas.current.height = Math.round(height * scale);
        canvas.current.style.width = `${width}px`;
        canvas.current.style.height = `${height}px`;
      }
      const context = canvas.current.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      draw(context, now.current);
      canvas.current.dataset.painted = `${now.current.trace.trace_id} ${now.current.trace.count}`;
    });
  };
}

/** Keeps the canvas as large as its place, and in step with scrolling and the theme. */
function follow(scroller, canvas, now, paint) {
  const resized = new ResizeObserver(() => {
    now.current.width = scroller.clientWidth;
    now.current.height = scroller.clientHeight;
    paint();
  });
  const scrolled = () => {
    now.current.scroll = scroller.scrollTop;
    paint();
  };
  resized.observe(scroller);
  scroller.addEventListener("scroll", scrolled);
  addEventListener("themechange", paint);
  return () => {
    resized.disconnect();
    scroller.removeEventListener("scroll", scrolled);
    removeEventListener("themechange", paint);
  };
}

/** Scrolls the selected span into view. */
function reveal(scroller, { selected, layout }) {
  if (selected < 0 || !(layout.y[selected] >= 0)) return;
  const y = layout.y[selected];
  if (y < scroller.scrollTop) scroller.scrollTop = y - ROW;
  else if (y + ROW + AXIS > scroller.scrollTop + scroller.clientHeight) {
    scroller.scrollTop = y + 2 * ROW + AXIS - scroller.clientHeight;
  }
}

/** Wheel, drag and hover. */
function listen(scroller, now, { paint, onWindow, setHover }) {
  let drag = null;
  const perPixel = () => (now.current.to - now.current.from) / (now.current.width - now.current.layout.gutter);
  const move = (from, to) => {
    const { extent } = now.current.trace;
    const span = Math.min(Math.max(to - from, LEAST_WINDOW), extent * 1.01);
    const first = Math.min(Math.max(from, 0), Math.max(extent * 1.01 - span, 0));
    onWindow(span >= extent ? null : [first, first + span]);
  };
  const wheel = (event) => {
    const { from, to, layout } = now.current;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const center = from + (at(scroller, event).x - layout.gutter) * perPixel();
      const factor = Math.exp(Math.max(-1, Math.min(1, event.deltaY * 0.004)));
      move(center - (center - from) * factor, center + (to - center) * factor);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      const shift = (event.deltaX || event.deltaY) * perPixel();
      move(from + shift, to + shift);
    }
  };
  const down = (event) => {
    if (event.button !== 0) return;
    scroller.dragged = false;
    drag = { x: event.clientX, y: event.clientY, scroll: scroller.scrollTop, from: now.current.from, to: now.current.to };
  };
  const moved = (event) => {
    if (!drag) {
      const span = scroller.contains(event.target) ? spanAt(now.current, at(scroller, event)) : -1;
      const place = { span, x: event.clientX, y: event.clientY };
      setHover((before) => (span < 0 ? null : before && before.span === span ? before : place));
      return;
    }
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!scroller.dragged && Math.hypot(dx, dy) < CLICK) return;
    scroller.dragged = true;
    setHover(null);
    scroller.scrollTop = drag.scroll - dy;
    if (drag.to - drag.from < now.current.trace.extent) move(drag.from - dx * perPixel(), drag.to - dx * perPixel());
    paint();
  };
  const up = () => (drag = null);
  const out = () => setHover(null);
  scroller.addEventListener("wheel", wheel, { passive: false });
  scroller.addEventListener("pointerdown", down);
  addEventListener("pointermove", moved);
  addEventListener("pointerup", up);
  scroller.addEventListener("pointerleave", out);
  return () => {
    scroller.removeEventListener("wheel", wheel);
    scroller.removeEventListener("pointerdown", down);
    removeEventListener("pointermove", moved);
    removeEventListener("pointerup", up);
    scroller.removeEventListener("pointerleave", out);
  };
}

/** Where in the view an event is. */
function at(scroller, event) {
  const box = scroller.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

/** The number of the span at a place of the view, or -1. */
function spanAt({ trace, layout, from, to, width, scroll }, { x, y }) {
  const below = y - AXIS + scroll;
  if (y < AXIS || below < 0) return -1;
  for (const [top, spans] of layout.rows) {
    if (below < top || below >= top + ROW) continue;
    if (x < layout.gutter) return spans[0];
    const perPixel = (to - from) / (width - layout.gutter);
    const time = from + (x - layout.gutter) * perPixel;
    const slack = 2 * perPixel;
    return spans.find((i) => time >= drawnStart(trace, i) - slack && time <= trace.end[i] + slack) ?? -1;
  }
  return -1;
}

function Tooltip({ trace, hover }) {
  const i = hover.span;
  const side = hover.x > innerWidth - 340 ? { right: `${innerWidth - hover.x + 10}px` } : { left: `${hover.x + 14}px` };
  return html`
    <div class="tooltip" style=${{ ...side, top: `${hover.y + 16}px` }}>
      <b>${trace.resourceOf(i) || trace.nameOf(i)}</b>
      <span>${trace.serviceOf(i)} · ${trace.nameOf(i)} · ${duration(trace.duration[i])}</span>
      ${(trace.partsOf.get(i) || []).map((part) => html`<span>${part.label} ${duration(part.duration)}</span>`)}
    </div>`;
}
