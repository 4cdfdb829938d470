// What is known of one pair: its distribution in both directions, and how it
// did over time.

import uPlot from "uplot";
import { getCell, now, type Cell, type Direction, type Distribution, type Value } from "./api";
import { h, refill, svg } from "./dom";
import { counted, digits, latency, percent, span, time } from "./format";

export class Details {
  readonly element = h("aside", { class: "card details", "aria-label": "Details of a pair", tabindex: -1 });
  private pair: [string, string] | null = null;
  private plot: uPlot | null = null;
  private asked = 0;

  constructor(private onClose: () => void, private onNode: (name: string) => void) {
    this.element.addEventListener("keydown", (e) => { if (e.key === "Escape") this.close(); });
    this.clear();
  }

  clear(): void {
    this.pair = null;
    this.drop();
    refill(this.element, h("h2", {}, "Details"), h("p", { class: "empty" }, "Choose a cell to see what was measured between its two nodes: with the pointer, or with the arrow keys and Enter."));
  }

  private close(): void {
    this.clear();
    this.onClose();
  }

  async show(from: string, to: string): Promise<void> {
    if (!this.pair || this.pair[0] !== from || this.pair[1] !== to) {
      this.pair = [from, to];
    }
    await this.update();
  }

  /** Asks again for what is shown. */
  async update(): Promise<void> {
    if (!this.pair) return;
    const mine = ++this.asked;
    const pair = this.pair;
    try {
      const cell = await getCell(...pair);
      if (mine === this.asked && this.pair === pair) this.draw(cell);
    } catch (e) {
      if (mine === this.asked && this.pair === pair) {
        this.drop();
        refill(this.element, this.head(...pair), h("p", { class: "empty" }, `It could not be read: ${(e as Error).message}.`));
      }
    }
  }

  /** Draws the chart anew, in the colours of another theme. */
  themed(): void {
    void this.update();
  }

  private drop(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  private head(from: string, to: string): HTMLElement {
    const link = (name: string) => h("button", { class: "link", title: `All that ${name} measures and is measured by`, click: () => this.onNode(name) }, name);
    return h("div", { class: "head" }, h("h2", {}, link(from), h("span", { class: "arrow", "aria-label": "to" }, " → "), link(to)),
      h("button", { class: "icon", "aria-label": "Close the details", title: "Close (Esc)", click: () => this.close() }, "✕"));
  }

  private draw(cell: Cell): void {
    const focused = this.element.contains(document.activeElement) ? (document.activeElement as HTMLElement) : null;
    const label = focused?.getAttribute("aria-label") ?? focused?.textContent;
    this.drop();
    const { there, back } = cell;
    const m = there.measured;
    const chart = h("div", { class: "history" });
    refill(this.element,
      this.head(cell.from, cell.to),
      h("p", { class: "figure" },
        h("strong", {}, there.estimate.latency === undefined ? "unknown" : latency(there.estimate.latency)),
        there.estimate.error ? h("span", { class: "quiet", title: "Nine of ten are within this" }, ` ± ${latency(there.estimate.error)}`) : null,
        h("span", { class: `tag ${there.estimate.basis}` }, basisPhrase(there))),
      m?.stale ? h("p", { class: "warning" }, `The newest sample is ${span(m.age_ms / 1000)} old: too old for the scheduler, which goes by the next best basis.`) : null,
      m || back.measured ? strip(m, back.measured) : null,
      table(there, back),
      h("h3", {}, "History"),
      ...history(cell, chart));
    if (focused && label) {
      for (const b of this.element.querySelectorAll("button")) {
        if ((b.getAttribute("aria-label") ?? b.textContent) === label) b.focus();
      }
    }
    if (cell.history && cell.history.at.length > 1) this.plot = plot(cell, chart);
  }
}

function basisPhrase(d: Direction): string {
  switch (d.estimate.basis) {
    case "measured": return "measured";
    case "reverse": return "measured the other way";
    case "group": return "estimated from groups";
    case "local": return "the node itself";
  }
  return "nothing is known";
}

/** Both distributions on one logarithmic scale. */
function strip(there: Distribution | null, back: Distribution | null): SVGSVGElement {
  const width = 360, left = 38, right = 12;
  const known = [there, back].filter((d) => d !== null);
  // Around what there is, but never so near that a thousandth looks like much.
  const middle = Math.sqrt(Math.min(...known.map((d) => d.min)) * Math.max(...known.map((d) => d.p99)));
  const low = Math.max(1, Math.min(...known.map((d) => d.min * 0.85), middle / 2)), high = Math.max(...known.map((d) => Math.max(d.p99, d.mean) * 1.15), middle * 2, 2);
  const x = (us: number) => left + ((width - left - right) * Math.log(Math.min(Math.max(us, low), high) / low)) / Math.log(high / low);
  const rows = [["there", there], ["back", back]] as const;
  const picture = svg("svg", { viewBox: `0 0 ${width} 84`, class: "strip", role: "img", "aria-label": "The distribution of the round trips in both directions, on a logarithmic scale; the table below has the numbers" });
  let last = -99;
  for (const us of [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((d) => [d, 1.5 * d, 2 * d, 3 * d, 5 * d, 7 * d])) {
    if (us < low || us > high || x(us) - last < 46) continue;
    last = x(us);
    const label = us < 1000 ? `${us} µs` : `${us / 1000} ms`;
    picture.append(svg("line", { x1: x(us), x2: x(us), y1: 4, y2: 64, class: "rule" }), svg("text", { x: x(us), y: 79, class: "tick" }, label));
  }
  rows.forEach(([name, d], at) => {
    const y = 18 + at * 30;
    picture.append(svg("text", { x: left - 8, y: y + 4, class: "side" }, name));
    if (!d) return;
    picture.append(
      svg("line", { x1: x(d.min), x2: x(d.p99), y1: y, y2: y, class: "whisker" }),
      svg("rect", { x: x(d.p50), y: y - 7, width: Math.max(1, x(d.p90) - x(d.p50)), height: 14, class: "box" }),
      svg("line", { x1: x(d.min), x2: x(d.min), y1: y - 5, y2: y + 5, class: "whisker" }),
      svg("line", { x1: x(d.p99), x2: x(d.p99), y1: y - 5, y2: y + 5, class: "whisker" }),
      svg("line", { x1: x(d.p50), x2: x(d.p50), y1: y - 9, y2: y + 9, class: "median" }),
      svg("circle", { cx: x(d.mean), cy: y, r: 3, class: "mean" }),
    );
  });
  return picture;
}

function table(there: Direction, back: Direction): HTMLTableElement {
  const us = (v: number) => (v < 995 ? `${digits(v)} µs` : `${digits(v / 1000)} ms`);
  const rows: [string, string | null, (d: Distribution) => string][] = [
    ["Min", "Smallest round trip", (d) => us(d.min)],
    ["p50", "Median: the thick line", (d) => us(d.p50)],
    ["p90", "90th percentile: the end of the box", (d) => us(d.p90)],
    ["p99", "99th percentile: the end of the line", (d) => us(d.p99)],
    ["Mean", "The dot; each sample counts as at most 20 times the median", (d) => us(d.mean)],
    ["Samples", "In the agent's window", (d) => String(d.samples)],
    ["Sent, lost", "Over the loss window, in bursts that were answered at all", (d) => d.lost === 0 ? "none lost" : `${d.sent}, ${d.lost}`],
    ["Loss", "Lower bound of the 95 % interval", (d) => `${percent(d.loss * 1e6)} %`],
    ["Method", null, (d) => d.method || "–"],
    ["Age", "Of the newest sample, when the agents were read", (d) => span(d.age_ms / 1000)],
  ];
  const value = (d: Direction, of: (d: Distribution) => string) => h("td", {}, d.measured ? of(d.measured) : "–");
  return h("table", { class: "numbers" },
    h("caption", { class: "hidden" }, "What was measured, in both directions"),
    h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col" }, "there"), h("th", { scope: "col" }, "back"))),
    h("tbody", {},
      h("tr", {}, h("th", { scope: "row", title: "What the scheduler compares" }, "Latency"),
        ...[there, back].map((d) => h("td", {}, d.estimate.latency === undefined ? "?" : `${d.estimate.basis === "measured" ? "" : "~"}${latency(d.estimate.latency)}`))),
      ...rows.map(([name, title, of]) => h("tr", {}, h("th", { scope: "row", title }, name), value(there, of), value(back, of)))));
}

function history(cell: Cell, chart: HTMLElement): HTMLElement[] {
  const { history } = cell;
  if (!history) return [h("p", { class: "empty" }, "A recording is of one moment: it has no history.")];
  const t = now();
  const since = `This server remembers what it read since it started, at ${time(history.since, t)}`;
  if (history.at.length < 2) return [h("p", { class: "empty" }, `${since}. The next point comes with the next read.`)];
  const every = (history.at[history.at.length - 1]! - history.at[0]!) / (history.at.length - 1) / 1000;
  const known = history.p50.filter((v): v is number => v !== null);
  const range = known.length ? ` p50 was between ${latency(Math.min(...known))} and ${latency(Math.max(...known))}.` : "";
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `Chart of the latency, p50 and p99 from ${cell.from} to ${cell.to} over time.${range}`);
  const lost = history.loss.filter((v): v is number => v !== null && v > 0.004);
  return [chart, h("p", { class: "quiet small" }, `${since}: ${counted(history.at.length, "point")}, one every ${span(every)}. Lines are of what is known at each point.${lost.length ? ` Up to ${percent(Math.max(...lost) * 1e6)} % were lost.` : ""}`)];
}

function plot(cell: Cell, into: HTMLElement): uPlot {
  const history = cell.history!;
  const style = getComputedStyle(into);
  const probe = h("span");
  into.append(probe);
  const colour = (name: string) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const [text, rule, first, second, third] = ["--quiet", "--rule", "--series-1", "--series-2", "--series-3"].map(colour) as [string, string, string, string, string];
  probe.remove();
  const inMs = (values: Value[]) => values.map((v) => (v === null ? null : v / 1000));
  const font = `11px ${style.fontFamily}`;
  const span1 = history.at[history.at.length - 1]! - history.at[0]!;
  const clock = (at: number) => new Date(at * 1000).toTimeString().slice(0, span1 < 600e3 ? 8 : 5);
  const series = (label: string, stroke: string, width: number, dash?: number[]): uPlot.Series =>
    ({ label, stroke, width, dash, points: { show: history.at.length < 3, size: 4 }, value: (_, v) => (v === null || v === undefined ? "–" : `${digits(v)} ms`) });
  return new uPlot({
    width: into.clientWidth || 340, height: 190,
    cursor: { y: false, points: { size: 6 } },
    scales: { x: { time: true }, y: { distr: 3, range: (_, min, max) => (min > 0 ? [min / 1.25, max * 1.25] : [0.05, 10]) } },
    axes: [
      { stroke: text, font, grid: { stroke: rule, width: 1 }, ticks: { show: false }, size: 26, space: 64, values: (_, splits) => splits.map(clock) },
      { stroke: text, font, grid: { stroke: rule, width: 1 }, ticks: { show: false }, size: 46, space: 24, values: (_, splits) => splits.map((v) => (v === null ? "" : digits(v))) },
    ],
    series: [
      { label: "at", value: (_, v) => (v === null || v === undefined ? "–" : new Date(v * 1000).toTimeString().slice(0, 8)) },
      series("latency", first, 2), series("p50", second, 1.5), series("p99", third, 1.5, [5, 3]),
    ],
  }, [history.at.map((t) => t / 1000), inMs(history.latency), inMs(history.p50), inMs(history.p99)] as uPlot.AlignedData, into);
}
