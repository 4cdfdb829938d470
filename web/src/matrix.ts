// The latency matrix: between providers as a table, between nodes as a table or,
// where they are many, on a canvas, or as a list for who reads rather than sees.

import { getMatrix, type Matrix, type Overview, type Value } from "./api";
import { Canvas } from "./canvas";
import { Details } from "./details";
import { choice, h, refill } from "./dom";
import { counted, span } from "./format";
import { Grid } from "./grid";
import { cellsAt, look, type Heat, type Place } from "./heat";
import { legend } from "./legend";
import { quantities, quantityOf } from "./scale";
import type { View } from "./main";

const inTable = 40; // rows and columns of which a table shows the numbers
const perPage = 100;

export class MatrixView implements View {
  readonly element = h("div", { class: "matrix" });
  private overview: Overview | null = null;
  private matrix: Matrix | null = null;
  private show = "latency";
  private from = "";
  private to = "";
  private asList = false;
  private page = 0;
  private chosen: [string, string] | null = null;
  private asked = 0;
  private drawnOnce = false;

  private legendPlace = h("div", { class: "legend-place" });
  private providersGrid = new Grid((i, j) => this.chooseBlock(i, j));
  private providersTitle = h("h2", { id: "providers-title" }, "Between providers");
  private providersNote = h("p", { class: "quiet small" });
  private providersCard = h("section", { class: "card providers", "aria-labelledby": "providers-title" }, this.providersTitle, h("div", { class: "beside" }, this.providersGrid.element, this.providersNote));
  private nodesGrid = new Grid((i, j) => this.chooseCell(i, j));
  private canvas = new Canvas((i, j) => this.chooseCell(i, j), () => this.zoomed());
  private zoomBar = h("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
    h("button", { "aria-label": "Zoom out", title: "Zoom out (−)", click: () => this.canvas.zoomBy(0.67) }, "−"),
    h("button", { title: "Show all (0)", click: () => this.canvas.fitAll() }, "Fit"),
    h("button", { "aria-label": "Zoom in", title: "Zoom in (+)", click: () => this.canvas.zoomBy(1.5) }, "+"));
  private fromSelect = h("select", { id: "from", change: (e: Event) => this.scope((e.target as HTMLSelectElement).value, this.to) });
  private toSelect = h("select", { id: "to", change: (e: Event) => this.scope(this.from, (e.target as HTMLSelectElement).value) });
  private nodesPlace = h("div", { class: "nodes-place" });
  private nodesNote = h("p", { class: "quiet small" });
  private details: Details;
  private left = h("div", { class: "left" });
  private right = h("div", { class: "left right-column" });
  private heat: Heat | null = null;

  constructor(openNode: (name: string) => void) {
    this.details = new Details(() => { this.chosen = null; this.draw(); }, openNode);
    const bar = h("div", { class: "bar-row" },
      choice("Show", quantities.filter((q) => !["p90", "min"].includes(q.name)).map((q) => ({ value: q.name, label: q.label, title: q.title })), this.show, (v) => { this.show = v; void this.load(); }),
      this.legendPlace);
    const nodes = h("section", { class: "card nodes", "aria-labelledby": "nodes-title" },
      h("div", { class: "head" }, h("h2", { id: "nodes-title" }, "Between nodes"),
        h("div", { class: "tools" },
          h("label", { for: "from" }, "from"), this.fromSelect, h("label", { for: "to" }, "to"), this.toSelect,
          this.zoomBar,
          choice("View", [{ value: "heatmap", label: "Heatmap" }, { value: "list", label: "Table", title: "The same as a table, the largest first" }], "heatmap",
            (v) => { this.asList = v === "list"; this.page = 0; this.draw(); }))),
      this.nodesPlace, this.nodesNote);
    this.left.append(this.providersCard, nodes);
    this.right.append(this.details.element);
    this.element.append(bar, h("div", { class: "columns" }, this.left, this.right));
  }

  update(overview: Overview): void {
    this.overview = overview;
    this.options();
    void this.load();
    void this.details.update();
  }

  shown(): void {
    this.draw();
  }

  themed(): void {
    this.draw();
    this.details.themed();
  }

  private options(): void {
    const { providers } = this.overview!;
    for (const [select, value] of [[this.fromSelect, this.from], [this.toSelect, this.to]] as const) {
      const wanted = ["", ...providers];
      if (wanted.length === select.options.length && wanted.every((v, i) => select.options[i]!.value === v)) continue;
      refill(select, ...wanted.map((v) => h("option", { value: v }, v === "" ? "all nodes" : named(v))));
      select.value = providers.includes(value) ? value : "";
    }
    if (!providers.includes(this.from)) this.from = "";
    if (!providers.includes(this.to)) this.to = "";
  }

  private async load(): Promise<void> {
    const mine = ++this.asked;
    try {
      // Every answer has the bases.
      const matrix = await getMatrix(this.show === "basis" ? "latency" : this.show);
      if (mine !== this.asked) return;
      this.matrix = { ...matrix, show: this.show };
      this.draw();
    } catch (e) {
      if (mine !== this.asked) return;
      setTimeout(() => { if (mine === this.asked) void this.load(); }, 1000);
      if (!this.matrix) refill(this.nodesPlace, h("p", { class: "empty" }, `The matrix could not be read: ${(e as Error).message}.`));
    }
  }

  private draw(): void {
    const { overview, matrix } = this;
    if (!overview || !matrix || !this.element.isConnected) return;
    // Nodes may have come or gone between the two answers; the next ones agree.
    if (matrix.rows && matrix.rows.length !== overview.nodes.length) return;
    const q = quantityOf(matrix.show);
    refill(this.legendPlace, legend(q, matrix.methods ?? []));
    this.drawProviders(overview, matrix);
    this.drawNodes(overview, matrix);
    if (!this.drawnOnce) {
      this.drawnOnce = true;
      // The frame that this was drawn for has been shown when the one after it
      // begins. Benchmarks read the mark.
      requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("netlatency-drawn")));
    }
  }

  private drawProviders(overview: Overview, matrix: Matrix): void {
    const { providers } = overview;
    this.providersCard.hidden = providers.length < 2 || providers.length > inTable;
    if (this.providersCard.hidden) return;
    const places = providers.map((p) => ({ name: named(p), group: "" }));
    const { blocks } = matrix;
    this.providersGrid.draw({
      label: "Between providers", from: places, to: places, quantity: quantityOf(matrix.show), methods: matrix.methods ?? [],
      at: (i, j) => cellsAt(blocks, i, j), self: (i, j) => blocks.pairs[i]![j] === 0,
      estimated: (i, j) => blocks.measured[i]![j] === 0,
      note: (i, j) => `${blocks.measured[i]![j]} of ${counted(blocks.pairs[i]![j]!, "pair")} measured`,
    }, this.from && this.to ? [named(this.from), named(this.to)] : null);
    const sums: Record<string, string> = { loss: "The mean of the pairs of nodes.", age: "The oldest of the pairs of nodes.", basis: "The weakest of the pairs of nodes.", method: "The most frequent of the pairs of nodes." };
    refill(this.providersNote, `${sums[matrix.show] ?? "The median of the pairs of nodes."} Choose a cell to see its nodes alone.`);
  }

  private drawNodes(overview: Overview, matrix: Matrix): void {
    if (!matrix.rows) {
      this.zoomBar.hidden = true;
      refill(this.nodesPlace, h("p", { class: "empty" }, `${counted(overview.nodes.length, "node")} are more than the ${overview.max_nodes} of which every pair is shown. The providers beside this, and each node's own page, have them.`));
      refill(this.nodesNote);
      return;
    }
    const rows: number[] = [], columns: number[] = [];
    const from = this.from === "" ? -1 : overview.providers.indexOf(this.from), to = this.to === "" ? -1 : overview.providers.indexOf(this.to);
    overview.nodes.forEach((n, i) => {
      if (from < 0 || n.provider === from) rows.push(i);
      if (to < 0 || n.provider === to) columns.push(i);
    });
    const place = (i: number): Place => ({ name: overview.nodes[i]!.name, group: named(overview.providers[overview.nodes[i]!.provider]!) });
    const all = matrix.rows, basis = matrix.basis!;
    const heat: Heat = {
      label: `From ${this.from ? named(this.from) : "all nodes"} to ${this.to ? named(this.to) : "all nodes"}`,
      from: rows.map(place), to: columns.map(place), quantity: quantityOf(matrix.show), methods: matrix.methods ?? [],
      at: (i, j) => ({ value: all[rows[i]!]![columns[j]!] ?? null, basis: basis[rows[i]!]![columns[j]!]! }),
      self: (i, j) => rows[i] === columns[j],
    };
    this.heat = heat;
    const small = rows.length <= inTable && columns.length <= inTable;
    // A large heatmap needs the height.
    const side = overview.nodes.length > inTable ? this.right : this.left;
    if (this.providersCard.parentElement !== side) side.prepend(this.providersCard);
    this.zoomBar.hidden = this.asList || small;
    if (rows.length === 0) {
      refill(this.nodesPlace, h("p", { class: "empty" }, "There are no nodes yet."));
      refill(this.nodesNote);
      return;
    }
    if (this.asList) {
      refill(this.nodesPlace, this.list(heat));
      refill(this.nodesNote);
      return;
    }
    const child = small ? this.nodesGrid.element : this.canvas.element;
    if (this.nodesPlace.firstChild !== child || this.nodesPlace.childNodes.length !== 1) refill(this.nodesPlace, child);
    if (small) this.nodesGrid.draw(heat, this.chosen);
    else this.canvas.draw(heat, this.chosen);
    this.noted(overview, small);
  }

  private noted(overview: Overview, small: boolean): void {
    const q = quantityOf(this.show);
    const notes: string[] = [];
    if (this.show === "latency") {
      const penalty = overview.loss_penalty_ms > 0 ? ` + loss · ${overview.loss_penalty_ms} ms` : "";
      notes.push(`Latency in ms: mean${overview.tail_weight > 0 ? ` + ${overview.tail_weight} · p99` : ""}${penalty}. ${small ? "~ and italics mark" : "In large cells a dot marks"} what is estimated, not measured.`);
    } else if (q.unit) notes.push(`${q.title}, in ${q.unit}.`);
    else notes.push(`${q.title}.`);
    if (this.show === "age" && overview.stale_ms > 0) notes.push(`The scheduler uses none older than ${span(overview.stale_ms / 1000)}.`);
    if (!small) notes.push("Ctrl and the wheel zoom, as + and − do; Ctrl and an arrow key go to the next provider.");
    refill(this.nodesNote, notes.join(" "));
  }

  private zoomed(): void {
    this.zoomBar.classList.toggle("in", this.canvas.zoomed > 1);
  }

  /** The pairs in scope as a table, the largest value first. */
  private list(heat: Heat): HTMLElement {
    const pairs: { i: number; j: number; value: Value }[] = [];
    for (let i = 0; i < heat.from.length; i++) {
      for (let j = 0; j < heat.to.length; j++) if (!heat.self(i, j)) pairs.push({ i, j, value: heat.at(i, j).value });
    }
    pairs.sort((a, b) => (b.value ?? -1) - (a.value ?? -1) || a.i - b.i || a.j - b.j);
    const pages = Math.max(1, Math.ceil(pairs.length / perPage));
    this.page = Math.min(this.page, pages - 1);
    const shown = pairs.slice(this.page * perPage, (this.page + 1) * perPage);
    const go = (by: number, label: string) =>
      h("button", { disabled: by < 0 ? this.page === 0 : this.page === pages - 1, click: () => { this.page += by; this.draw(); } }, label);
    return h("div", {},
      h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Pairs of nodes" }, h("table", { class: "list" },
        h("caption", { class: "hidden" }, `${heat.label}: ${heat.quantity.label}, the largest first`),
        h("thead", {}, h("tr", {}, ...["From", "Provider", "To", "Provider"].map((t) => h("th", { scope: "col" }, t)), h("th", { scope: "col", class: "right" }, heat.quantity.label + (heat.quantity.unit ? ` [${heat.quantity.unit}]` : "")), h("th", { scope: "col" }, "Basis"), h("th", { scope: "col" }, h("span", { class: "hidden" }, "Details")))),
        h("tbody", {}, ...shown.map(({ i, j }) => h("tr", {},
          h("td", {}, heat.from[i]!.name), h("td", { class: "quiet" }, heat.from[i]!.group), h("td", {}, heat.to[j]!.name), h("td", { class: "quiet" }, heat.to[j]!.group),
          h("td", { class: "right" }, look(heat, i, j).text), h("td", {}, look({ ...heat, quantity: quantityOf("basis") }, i, j).text),
          h("td", {}, h("button", { class: "link", "aria-label": `Details from ${heat.from[i]!.name} to ${heat.to[j]!.name}`, click: () => this.chooseCell(i, j) }, "details"))))))),
      h("div", { class: "pages" }, go(-1, "Previous"), h("span", {}, `${counted(pairs.length, "pair")}, page ${this.page + 1} of ${pages}`), go(1, "Next")));
  }

  private chooseBlock(i: number, j: number): void {
    const { providers } = this.overview!;
    const same = this.from === providers[i] && this.to === providers[j];
    this.scope(same ? "" : providers[i]!, same ? "" : providers[j]!);
  }

  private scope(from: string, to: string): void {
    this.from = from;
    this.to = to;
    this.fromSelect.value = from;
    this.toSelect.value = to;
    this.page = 0;
    this.draw();
  }

  private chooseCell(i: number, j: number): void {
    const heat = this.heat!;
    if (heat.self(i, j)) return;
    this.chosen = [heat.from[i]!.name, heat.to[j]!.name];
    void this.details.show(...this.chosen);
    this.draw();
  }
}

/** A provider's name for a person. */
export const named = (provider: string) => (provider === "-" ? "no provider" : provider);
