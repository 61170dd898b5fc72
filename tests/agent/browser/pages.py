"""The page as a test sees it: what is shown, what is drawn, and what it did behind one's back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import ConsoleMessage, Locator, Page

    from asynctrace.agent import AgentThread


class Viewer:
    """An open page, and the agent it came from."""

    def __init__(self, page: Page, agent: AgentThread) -> None:
        self.page = page
        self.agent = agent
        self.expected_failures = False  # the test ends the agent
        self._problems: list[str] = []
        self._requests: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._problems.append(str(error)))
        page.on("dialog", lambda dialog: self._problems.append(dialog.message))
        page.on("request", lambda request: self._requests.append(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._problems.append(message.text)

    def assert_well_behaved(self) -> None:
        """No complaint in the console, and no request to anybody but the agent."""
        foreign = [url for url in self._requests if not url.startswith((self.agent.url, "blob:", "data:"))]
        assert foreign == [], "requests off the machine"
        assert self.expected_failures or self._problems == [], self._problems

    def forget_requests(self, url: str) -> None:
        """Those to another agent of the test's are no foreign ones."""
        self._requests = [one for one in self._requests if not one.startswith(url)]

    @property
    def lines(self) -> Locator:
        """The lines of the list."""
        return self.page.locator("nav.list .line")

    @property
    def detail(self) -> Locator:
        """The selected span."""
        return self.page.locator("section.detail")

    async def open(self, trace_id: int, **query: str) -> None:
        """Goes to a trace by its address."""
        words = "&".join(f"{key}={value}" for key, value in query.items())
        await self.page.goto(f"{self.agent.url}/#/t/{trace_id:032x}{'?' if words else ''}{words}")
        await self.painted(trace_id)

    async def painted(self, trace_id: int, spans: int | None = None) -> None:
        """Waits until a trace is drawn, with as many spans."""
        wanted = f"{trace_id:032x} {spans if spans is not None else ''}"
        await self.page.wait_for_function(
            "wanted => (document.querySelector('.chart canvas')?.dataset.painted || '').startsWith(wanted)",
            arg=wanted,
        )

    async def repainted(self) -> None:
        """Waits for the frame after the next, in which all that has changed is drawn."""
        await self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    async def place(self, span_id: int) -> tuple[float, float]:
        """Where the middle of a span's bar is on the screen: as the page lays it out, asked of its own modules."""
        found: list[float] = await self.page.evaluate(_PLACE, str(span_id))
        return found[0], found[1]

    async def click(self, span_id: int, **options: Any) -> None:
        """Clicks on a span's bar."""
        x, y = await self.place(span_id)
        await self.page.mouse.click(x, y, **options)

    async def pixels(self, variable: str) -> int:
        """How many pixels of the chart have a colour of the style sheet, about."""
        count: int = await self.page.evaluate(_PIXELS, variable)
        return count

    async def draws(self, variable: str, least: int) -> None:
        """Waits until so many pixels have a colour of the style sheet."""
        await self.page.wait_for_function(
            f"([variable, least]) => ({_PIXELS})(variable) > least", arg=[variable, least]
        )

    async def says(self, locator: Locator, text: str) -> None:
        """Waits until something is said somewhere."""
        await expect(locator).to_contain_text(text)


_PLACE = """async id => {
    const from = name => import(`/asynctrace/page/${name}.js`);
    const [api, { model }, { flame, ROW }, { waterfall }, { AXIS }, { parse }] = await Promise.all(
        ["api", "model", "layout_flame", "layout_rows", "draw", "route"].map(from));
    const route = parse(location.hash);
    const trace = model(await api.columns(route.trace));
    const i = trace.numberOf.get(id);
    const gutter = Math.min(360, Math.max(140, innerWidth * 0.22));
    const layout = route.view === "flame" ? flame(trace) : waterfall(trace, new Set(), gutter);
    const chart = document.querySelector(".chart");
    const box = chart.getBoundingClientRect();
    const [start, end] = route.window || [0, trace.extent * 1.01];
    const x = at => layout.gutter + (at - start) / (end - start) * (chart.clientWidth - layout.gutter);
    const middle = (x(trace.start[i]) + x(trace.end[i])) / 2;
    return [box.left + middle, box.top + AXIS + layout.y[i] + ROW / 2 - chart.scrollTop];
}"""

_PIXELS = """variable => {
    const canvas = document.querySelector(".chart canvas");
    const probe = document.createElement("i");
    probe.style.color = `var(--${variable})`;
    document.body.append(probe);
    const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    [copy.canvas.width, copy.canvas.height] = [canvas.width, canvas.height];
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
        if (Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 24) count++;
    }
    return count;
}"""
