// What the colours mean.

import { h } from "./dom";
import { bases, css, methodColour, palette, rampStops, type Quantity } from "./scale";

function swatch(colour: string | null, label: string): HTMLElement {
  const box = h("span", { class: colour ? "swatch" : "swatch unknown" });
  if (colour) box.style.backgroundColor = colour;
  return h("span", { class: "entry" }, box, label);
}

export function legend(q: Quantity, methods: string[]): HTMLElement {
  const p = palette();
  if (q.name === "basis") {
    return h("div", { class: "legend" }, ...["m", "r", "g"].map((b) => swatch(css(p.categories[bases[b]!.colour]!), bases[b]!.label)), swatch(null, "unknown"));
  }
  if (!q.share) {
    return h("div", { class: "legend" }, ...methods.map((m, at) => swatch(css(methodColour(at)), m)), swatch(null, "not measured"));
  }
  const stops = rampStops();
  const bar = h("span", { class: "bar" });
  bar.style.backgroundImage = `linear-gradient(to right, ${stops.map((c, i) => `${css(c)} ${(100 * i) / (stops.length - 1)}%`).join(", ")})`;
  const ticks = h("span", { class: "ticks" }, ...q.ticks.map((t) => {
    const tick = h("span", {}, t.label);
    tick.style.left = `${100 * Math.min(1, q.share!(t.at))}%`;
    return tick;
  }));
  return h("div", { class: "legend" }, h("span", { class: "scale", role: "img", "aria-label": `Colours from ${q.ticks[0]!.label} to ${q.ticks[q.ticks.length - 1]!.label}` }, bar, ticks),
    swatch(css(p.beyond), q.more), swatch(null, q.name === "latency" ? "unknown" : "not measured"));
}
