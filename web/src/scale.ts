// From a quantity to a colour. Colours differ in lightness all the way, from
// blue to yellow, which nobody's eyes confuse: what is far stands out from the
// page, dark on light or light on dark.

import { latency, ms, percent, span } from "./format";
import type { Value } from "./api";

export type RGB = readonly [number, number, number];

const rgb = (hex: string): RGB => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as unknown as RGB;

interface Palette { ramp: RGB[]; fine: RGB[]; beyond: RGB; self: RGB; unknown: RGB; hatch: RGB; categories: RGB[] }

const steps = 512;

/** The ramp in steps too fine to be seen, so that a cell costs a look into a list. */
const finely = (p: Omit<Palette, "fine">): Palette => ({ ...p, fine: Array.from({ length: steps + 1 }, (_, i) => mixed(p.ramp, i / steps)) });

const palettes: Record<"light" | "dark", Palette> = {
  light: finely({
    ramp: ["#fdf7dc", "#f0e2a0", "#cfc07f", "#9c9c83", "#6b7a88", "#3f5786", "#12306b"].map(rgb),
    beyond: rgb("#050b18"), self: rgb("#eceef1"), unknown: rgb("#f4f5f7"), hatch: rgb("#b9c0ca"),
    categories: ["#7fb2d9", "#c9e3f5", "#eab35a", "#8fcbb3", "#d9a7c5", "#b8b8b8"].map(rgb),
  }),
  dark: finely({
    ramp: ["#12305f", "#2c4670", "#50607a", "#7a7b74", "#a5965f", "#d0b34a", "#f7d84a"].map(rgb),
    beyond: rgb("#fffdf0"), self: rgb("#232a33"), unknown: rgb("#1b2129"), hatch: rgb("#4a5563"),
    categories: ["#3d7fb5", "#2b4d66", "#b87a14", "#2a8468", "#93567a", "#666666"].map(rgb),
  }),
};

let current = palettes.light;

/** Takes the colours of the theme that counts now. Asking for it takes longer than painting. */
export function retheme(): void {
  const chosen = document.documentElement.dataset.theme;
  current = palettes[(chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches) ? "dark" : "light"];
}

export const palette = () => current;

function mixed(ramp: RGB[], share: number): RGB {
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  const part = at - low;
  return [0, 1, 2].map((c) => Math.round(ramp[low]![c]! * (1 - part) + ramp[low + 1]![c]! * part)) as unknown as RGB;
}

export const css = (c: RGB) => `rgb(${c[0]} ${c[1]} ${c[2]})`;

/** Black or white, whichever is read better on c (WCAG 2: always 4.5 : 1). */
export function ink(c: RGB): string {
  const [r, g, b] = c.map((v) => { const s = v / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; }) as unknown as RGB;
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return luminance > 0.179 ? "#000" : "#fff";
}

export interface Quantity {
  name: string;
  label: string;
  title: string;
  /** What a number in a table's cell is in. */
  unit: string;
  text: (v: number) => string;
  /** With the unit, in a sentence. */
  phrase: (v: number) => string;
  /** Place on the ramp, above 1 for beyond it; null has categories instead. */
  share: ((v: number) => number) | null;
  ticks: { at: number; label: string }[];
  more: string;
}

const log = (low: number, high: number) => (v: number) => (v <= low ? 0 : Math.log(v / low) / Math.log(high / low));

const latencyTicks = [50, 100, 200, 500, 1000, 2000, 5000, 10000].map((us) => ({ at: us, label: us < 100 ? "50 µs" : us < 1000 ? `0.${us / 100}` : us === 10000 ? "10 ms" : String(us / 1000) }));

const ofTime = (name: string, label: string, title: string): Quantity =>
  ({ name, label, title, unit: "ms", text: ms, phrase: latency, share: log(50, 10000), ticks: latencyTicks, more: "beyond" });

const category = (name: string, label: string, title: string): Quantity =>
  ({ name, label, title, unit: "", text: String, phrase: String, share: null, ticks: [], more: "" });

export const quantities: Quantity[] = [
  ofTime("latency", "Latency", "What the scheduler compares: the mean, a share of the tail and a price for losses"),
  ofTime("p50", "p50", "Median of the round trips"),
  ofTime("p90", "p90", "90th percentile of the round trips"),
  ofTime("p99", "p99", "99th percentile of the round trips"),
  ofTime("min", "Min", "Smallest round trip"),
  {
    name: "loss", label: "Loss", title: "Lost probes: the lower bound of the 95 % interval of their share", unit: "%", text: percent, phrase: (v) => `${percent(v)} %`,
    share: (v) => (v <= 0 ? 0 : log(500, 100000)(Math.max(v, 700))), ticks: [{ at: 0, label: "0" }, { at: 1000, label: "0.1" }, { at: 10000, label: "1" }, { at: 100000, label: "10 %" }], more: "more",
  },
  {
    name: "age", label: "Age", title: "Age of the newest sample", unit: "", text: span, phrase: span,
    share: log(1, 3600), ticks: [{ at: 1, label: "1 s" }, { at: 10, label: "10" }, { at: 60, label: "1 min" }, { at: 600, label: "10" }, { at: 3600, label: "1 h" }], more: "older",
  },
  category("basis", "Basis", "What the latency rests on"),
  category("method", "Method", "How the pair is probed"),
];

export const quantityOf = (name: string) => quantities.find((q) => q.name === name) ?? quantities[0]!;

/** Letters of bases, in the order of their colours. */
export const bases: Record<string, { label: string; phrase: string; colour: number }> = {
  m: { label: "measured", phrase: "measured", colour: 0 },
  r: { label: "reverse", phrase: "measured the other way", colour: 1 },
  g: { label: "group", phrase: "estimated from the groups of the nodes", colour: 2 },
  u: { label: "unknown", phrase: "nothing is known", colour: -1 },
  l: { label: "local", phrase: "the node itself", colour: -2 },
};

/** How a cell looks; null is hatched: nothing is known. */
export function colourOf(q: Quantity, value: Value, basis: string): RGB | null {
  const p = palette();
  if (basis === "l" && value === 0) return p.self;
  if (q.name === "basis") return basis === "u" ? null : p.categories[bases[basis]?.colour ?? 5] ?? p.self;
  if (value === null) return null;
  if (!q.share) return p.categories[value === 0 ? 0 : 1 + (value % 5)] ?? p.self;
  const share = q.share(value);
  return share > 1.0001 ? p.beyond : p.fine[Math.max(0, Math.round(share * steps))] ?? p.beyond;
}

/** Methods' colours are told apart better than those of bases side by side. */
export const methodColour = (at: number): RGB => palette().categories[at === 0 ? 0 : 1 + (at % 5)]!;

export function rampStops(): RGB[] {
  return palette().ramp;
}
