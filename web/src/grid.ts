// A heatmap as a table: for up to some dozens of rows, with numbers in the
// cells. It is one stop of the Tab key; arrow keys go from cell to cell.

import { h, say } from "./dom";
import { look, moved, runs, sentence, type Heat } from "./heat";
import { css, ink } from "./scale";

export class Grid {
  readonly element = h("div", { class: "grid" });
  private heat: Heat | null = null;
  private shape = "";
  private cells: HTMLTableCellElement[][] = [];
  private focus: [number, number] = [0, 0];
  private chosen: [string, string] | null = null;

  constructor(private onChoose: (i: number, j: number) => void) {}

  draw(heat: Heat, chosen: [string, string] | null = null): void {
    const shape = JSON.stringify([heat.label, heat.from, heat.to]);
    this.heat = heat;
    this.chosen = chosen;
    if (shape !== this.shape) {
      this.shape = shape;
      this.build(heat);
    }
    this.cells.forEach((row, i) => row.forEach((cell, j) => this.paint(cell, i, j)));
  }

  private build(heat: Heat): void {
    this.focus = [0, Math.min(1, heat.to.length - 1)];
    const groups = runs(heat.to), bands = runs(heat.from);
    const grouped = heat.from.some((p) => p.group !== "") || heat.to.some((p) => p.group !== "");
    const lead = grouped ? 2 : 1;
    const head = h("thead");
    if (grouped) {
      head.append(h("tr", {}, h("td", { colspan: lead, class: "corner" }), ...groups.map((g) => h("th", { scope: "colgroup", colspan: g.length, class: "group" }, h("span", {}, g.group)))));
    }
    head.append(h("tr", {}, h("td", { colspan: lead, class: "corner" }, h("span", { class: "axes" }, "from ↓ to →")),
      ...heat.to.map((p) => h("th", { scope: "col", class: grouped ? "name tall" : "name" }, h("span", {}, p.name)))));
    const starts = new Set(groups.map((g) => g.start));
    const body = h("tbody");
    this.cells = [];
    for (const band of bands) {
      for (let i = band.start; i < band.start + band.length; i++) {
        const first = i === band.start;
        const row = h("tr", { class: first && i > 0 ? "band" : null });
        if (grouped && first) row.append(h("th", { scope: "rowgroup", rowspan: band.length, class: "group side" }, h("span", {}, band.group)));
        row.append(h("th", { scope: "row", class: "name" }, heat.from[i]!.name));
        const cells = heat.to.map((_, j) =>
          h("td", { role: "gridcell", tabindex: -1, class: starts.has(j) && j > 0 ? "cell band" : "cell", click: () => this.choose(i, j), focus: () => this.stop(i, j) }));
        row.append(...cells);
        this.cells.push(cells);
        body.append(row);
      }
    }
    const table = h("table", { role: "grid", "aria-label": heat.label, keydown: (e: KeyboardEvent) => this.key(e) }, head, body);
    this.element.replaceChildren(table);
    const at = this.cells[this.focus[0]]?.[this.focus[1]];
    if (at) at.tabIndex = 0;
  }

  private paint(cell: HTMLTableCellElement, i: number, j: number): void {
    const heat = this.heat!;
    const { colour, text, estimated } = look(heat, i, j);
    say(cell, text);
    cell.setAttribute("aria-label", sentence(heat, i, j));
    cell.title = sentence(heat, i, j);
    cell.classList.toggle("word", heat.quantity.share === null);
    cell.classList.toggle("unknown", colour === null);
    cell.classList.toggle("estimated", estimated);
    const chosen = this.chosen !== null && heat.from[i]!.name === this.chosen[0] && heat.to[j]!.name === this.chosen[1];
    cell.setAttribute("aria-selected", String(chosen));
    cell.style.backgroundColor = colour ? css(colour) : "";
    cell.style.color = colour ? ink(colour) : "";
  }

  private stop(i: number, j: number): void {
    const [oldI, oldJ] = this.focus;
    const old = this.cells[oldI]?.[oldJ];
    if (old) old.tabIndex = -1;
    this.cells[i]![j]!.tabIndex = 0;
    this.focus = [i, j];
  }

  private key(e: KeyboardEvent): void {
    if (!(e.target instanceof HTMLTableCellElement) || !this.heat) return;
    const [i, j] = this.focus;
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      this.choose(i, j);
      return;
    }
    const to = moved(e.key, e.ctrlKey || e.metaKey, i, j, this.heat);
    if (!to) return;
    e.preventDefault();
    this.cells[to[0]]?.[to[1]]?.focus();
  }

  private choose(i: number, j: number): void {
    this.stop(i, j);
    this.onChoose(i, j);
  }
}
