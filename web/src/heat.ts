// What both heatmaps share: rows and columns in groups, and what a cell says.

import type { Cells, Value } from "./api";
import { bases, colourOf, type Quantity, type RGB } from "./scale";

export interface Place { name: string; group: string }

export interface Heat {
  /** What the heatmap is of, for who does not see it. */
  label: string;
  from: Place[];
  to: Place[];
  quantity: Quantity;
  methods: string[];
  /** The value and the basis's letter of row i and column j. */
  at(i: number, j: number): { value: Value; basis: string };
  /** More about a cell, as a sentence; may be empty. */
  note?(i: number, j: number): string;
  /** Whether a cell rests on estimates alone; by its basis where it is not said. */
  estimated?(i: number, j: number): boolean;
  /** Cells that are one and the same place have no value. */
  self(i: number, j: number): boolean;
}

export interface Look { colour: RGB | null; text: string; phrase: string; estimated: boolean }

/** How a cell looks and what it says. */
export function look(heat: Heat, i: number, j: number): Look {
  const { value, basis } = heat.at(i, j);
  const q = heat.quantity;
  if (heat.self(i, j)) return { colour: colourOf(q, 0, "l"), text: "", phrase: "the node itself", estimated: false };
  const b = bases[basis] ?? bases.u!;
  const colour = colourOf(q, value, basis);
  if (q.name === "basis") return { colour, text: b.label, phrase: b.phrase, estimated: false };
  if (value === null) return { colour: null, text: "?", phrase: q.name === "latency" ? "nothing is known" : "not measured", estimated: false };
  if (q.name === "method") {
    const method = heat.methods[value] ?? "?";
    return { colour, text: method, phrase: method, estimated: false };
  }
  const estimated = q.name === "latency" && (heat.estimated?.(i, j) ?? basis !== "m");
  return { colour, text: (estimated ? "~" : "") + q.text(value), phrase: heat.estimated ? q.phrase(value) : `${q.phrase(value)}, ${b.phrase}`, estimated };
}

/** What a cell says, in a sentence. */
export function sentence(heat: Heat, i: number, j: number): string {
  const note = heat.note?.(i, j);
  return `${heat.from[i]!.name} to ${heat.to[j]!.name}: ${heat.quantity.label} ${look(heat, i, j).phrase}${note ? `; ${note}` : ""}`;
}

/** Runs of places of the same group: where they begin and how many they are. */
export function runs(places: Place[]): { group: string; start: number; length: number }[] {
  const found: { group: string; start: number; length: number }[] = [];
  places.forEach((p, at) => {
    const last = found[found.length - 1];
    if (last && last.group === p.group) last.length++;
    else found.push({ group: p.group, start: at, length: 1 });
  });
  return found;
}

export const cellsAt = (cells: Cells, i: number, j: number) => ({ value: cells.rows[i]?.[j] ?? null, basis: cells.basis[i]?.[j] ?? "u" });

/** Where an arrow key leads; null for another key. */
export function moved(key: string, jump: boolean, i: number, j: number, heat: Heat): [number, number] | null {
  const rows = heat.from.length, columns = heat.to.length;
  const next = (places: Place[], at: number, step: number) => {
    if (!jump) return Math.min(Math.max(at + step, 0), places.length - 1);
    const all = runs(places);
    const here = all.findIndex((r) => at < r.start + r.length);
    const run = all[Math.min(Math.max(here + step, 0), all.length - 1)]!;
    return step < 0 && at > all[here]!.start ? all[here]!.start : run.start;
  };
  switch (key) {
    case "ArrowUp": return [next(heat.from, i, -1), j];
    case "ArrowDown": return [next(heat.from, i, 1), j];
    case "ArrowLeft": return [i, next(heat.to, j, -1)];
    case "ArrowRight": return [i, next(heat.to, j, 1)];
    case "Home": return [jump ? 0 : i, 0];
    case "End": return [jump ? rows - 1 : i, columns - 1];
    case "PageUp": return [Math.max(0, i - 10), j];
    case "PageDown": return [Math.min(rows - 1, i + 10), j];
  }
  return null;
}
