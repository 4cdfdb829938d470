// A heatmap on a canvas, for hundreds of rows. What is scrolled is an empty box
// as large as the whole; the canvas stays in sight and shows the part of it that
// is. Cells are painted once into an image of one pixel a cell, which is then
// enlarged: a quarter of a million rectangles would take a second, this takes
// a few milliseconds.

import { h, say } from "./dom";
import { look, moved, runs, sentence, type Heat } from "./heat";
import { colourOf, css, palette } from "./scale";

const gap = 3; // between providers
const largest = 40;

export class Canvas {
  private canvas = h("canvas", { "aria-hidden": "true" });
  private room = h("div", { class: "room" });
  private tip = h("div", { class: "tip", "aria-hidden": "true", hidden: true });
  private live = h("div", { class: "hidden", "aria-live": "polite" });
  readonly scroller = h("div", { class: "scroller", tabindex: 0, role: "application", "aria-roledescription": "heatmap" }, this.canvas, this.room);
  readonly element = h("div", { class: "canvas" }, this.scroller, this.tip, this.live);
  private heat: Heat | null = null;
  private image = document.createElement("canvas");
  private hatch: CanvasPattern | null = null;
  private zoom = 1; // in times the size at which all fits
  private focus: [number, number] = [0, 1];
  private hover: [number, number] | null = null;
  private chosen: [string, string] | null = null;
  private rowAt: number[] = [];
  private columnAt: number[] = [];
  private margin = { left: 0, top: 0 };
  private pending = 0;
  private spoken = 0;

  constructor(private onChoose: (i: number, j: number) => void, private onZoom: () => void) {
    const s = this.scroller;
    s.addEventListener("scroll", () => this.later());
    s.addEventListener("focus", () => this.later());
    s.addEventListener("blur", () => this.later());
    s.addEventListener("keydown", (e) => this.key(e));
    s.addEventListener("mousemove", (e) => this.point(e));
    s.addEventListener("mouseleave", () => { this.hover = null; this.tip.hidden = true; this.later(); });
    s.addEventListener("click", (e) => {
      const at = this.under(e);
      if (!at) return;
      this.focus = at;
      this.onChoose(...at);
      this.later();
    });
    s.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return; // a plain wheel scrolls
      e.preventDefault();
      this.zoomBy(e.deltaY < 0 ? 1.25 : 0.8, this.under(e));
    }, { passive: false });
    new ResizeObserver(() => { this.layout(); this.render(); }).observe(this.element);
  }

  draw(heat: Heat, chosen: [string, string] | null = null): void {
    const same = this.heat !== null && this.heat.from.length === heat.from.length && this.heat.to.length === heat.to.length && this.heat.label === heat.label;
    this.heat = heat;
    this.chosen = chosen;
    if (!same) {
      this.zoom = 1;
      this.focus = [0, Math.min(1, heat.to.length - 1)];
      this.scroller.scrollTo(0, 0);
    }
    this.scroller.setAttribute("aria-label", `${heat.label}: ${heat.quantity.label}. Arrow keys go from cell to cell, with Control from provider to provider; Enter shows the details, plus and minus zoom. The table view has the same.`);
    this.paint();
    this.layout();
    this.render();
  }

  /** Paints the cells into the image. */
  private paint(): void {
    const heat = this.heat!;
    const width = heat.to.length, height = heat.from.length;
    this.image.width = Math.max(1, width);
    this.image.height = Math.max(1, height);
    const context = this.image.getContext("2d")!;
    const data = context.createImageData(this.image.width, this.image.height);
    const p = palette();
    for (let i = 0, at = 0; i < height; i++) {
      for (let j = 0; j < width; j++, at += 4) {
        const { value, basis } = heat.at(i, j);
        const c = heat.self(i, j) ? p.self : colourOf(heat.quantity, value, basis) ?? p.unknown;
        data.data[at] = c[0];
        data.data[at + 1] = c[1];
        data.data[at + 2] = c[2];
        data.data[at + 3] = 255;
      }
    }
    context.putImageData(data, 0, 0);
    this.hatch = null;
  }

  zoomBy(factor: number, keep: [number, number] | null = null): void {
    const at = keep ?? this.focus;
    const before = this.zoom;
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), Math.max(1, largest / this.fit()));
    if (this.zoom === before) return;
    this.layout();
    this.reveal(at, true);
    this.render();
    this.onZoom();
  }

  fitAll(): void {
    this.zoomBy(0);
  }

  get zoomed(): number {
    return this.zoom;
  }

  /** The size of a cell at which all fits in width. */
  private fit(): number {
    const heat = this.heat!;
    const width = this.scroller.clientWidth - this.margin.left - gap * (runs(heat.to).length - 1) - 2;
    const height = this.scroller.clientHeight - this.margin.top - gap * (runs(heat.from).length - 1) - 4;
    return Math.max(1, Math.min(largest, width / Math.max(1, heat.to.length), height / Math.max(1, heat.from.length)));
  }

  private get cell(): number {
    return this.fit() * this.zoom;
  }

  /** Finds where rows and columns are, and the size of the whole. */
  private layout(): void {
    if (!this.heat || this.scroller.clientWidth === 0) return;
    const { from, to } = this.heat;
    const context = this.canvas.getContext("2d")!;
    context.font = this.font(11);
    const names = this.labelled(from, context);
    this.margin = { left: 22 + (this.named() ? names : 0), top: 22 + (this.named() ? Math.min(110, this.labelled(to, context)) : 0) };
    const cell = this.cell;
    const places = (of: Heat["from"], start: number) => {
      const at: number[] = [];
      let x = start;
      of.forEach((p, i) => {
        if (i > 0 && p.group !== of[i - 1]!.group) x += gap;
        at.push(x);
        x += cell;
      });
      at.push(x);
      return at;
    };
    this.columnAt = places(to, this.margin.left);
    this.rowAt = places(from, this.margin.top);
    this.room.style.width = `${Math.floor(this.columnAt[to.length]!)}px`;
    this.room.style.height = `${Math.ceil(this.rowAt[from.length]!) + 2}px`;
  }

  private labelled(of: Heat["from"], context: CanvasRenderingContext2D): number {
    return 10 + Math.min(160, of.reduce((most, p) => Math.max(most, context.measureText(p.name).width), 0));
  }

  /** Whether cells are large enough for the names of nodes beside them. */
  private named(): boolean {
    if (!this.heat) return false;
    const s = this.scroller;
    return this.zoom * Math.max(1, Math.min(largest, (s.clientWidth - 22) / Math.max(1, this.heat.to.length), (s.clientHeight - 22) / Math.max(1, this.heat.from.length))) >= 13;
  }

  private font(size: number): string {
    return `${size}px ${getComputedStyle(document.body).fontFamily}`;
  }

  later(): void {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.render(); });
  }

  private render(): void {
    const heat = this.heat;
    const width = this.scroller.clientWidth, height = this.scroller.clientHeight;
    if (!heat || width === 0 || height === 0) return;
    const dpr = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * dpr) || this.canvas.height !== Math.round(height * dpr)) {
      this.canvas.width = Math.round(width * dpr);
      this.canvas.height = Math.round(height * dpr);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d")!;
    const style = getComputedStyle(this.element);
    const [paper, text, quiet, accent] = ["--card", "--text", "--quiet", "--accent"].map((name) => style.getPropertyValue(name).trim() || "#888") as [string, string, string, string];
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.fillStyle = css(palette().self);
    context.fillStyle = this.resolved(paper);
    context.fillRect(0, 0, width, height);
    const dx = this.scroller.scrollLeft, dy = this.scroller.scrollTop;
    const { left, top } = this.margin;
    const cell = this.cell;

    context.save();
    context.beginPath();
    context.rect(left, top, Math.min(width, this.columnAt[heat.to.length]! - dx) - left, Math.min(height, this.rowAt[heat.from.length]! - dy) - top);
    context.clip();
    context.imageSmoothingEnabled = false;
    const rows = runs(heat.from), columns = runs(heat.to);
    for (const r of rows) {
      for (const c of columns) {
        const x = this.columnAt[c.start]! - dx, y = this.rowAt[r.start]! - dy, w = c.length * cell, hgt = r.length * cell;
        if (x > width || y > height || x + w < left || y + hgt < top) continue;
        context.drawImage(this.image, c.start, r.start, c.length, r.length, x, y, w, hgt);
      }
    }
    if (cell >= 9) this.details(context, heat, dx, dy, width, height);
    this.marks(context, heat, dx, dy, this.resolved(accent), this.resolved(text));
    context.restore();
    this.names(context, heat, dx, dy, width, height, this.resolved(text), this.resolved(quiet));
    this.scroller.dataset.drawn = "true";
  }

  /** light-dark() is for CSS alone; what it stands for is asked of an element. */
  private resolved(colour: string): string {
    if (!colour.startsWith("light-dark")) return colour;
    this.tip.style.color = colour;
    const plain = getComputedStyle(this.tip).color;
    this.tip.style.color = "";
    return plain;
  }

  /** What only large cells have room for: hatches, lines and numbers. */
  private details(context: CanvasRenderingContext2D, heat: Heat, dx: number, dy: number, width: number, height: number): void {
    const cell = this.cell;
    const seen = (at: number[], start: number, end: number) => {
      const last = at.length - 1;
      let a = 0;
      while (a < last && at[a]! + cell < start) a++;
      let b = a;
      while (b < last && at[b]! < end) b++;
      return [a, b] as const;
    };
    const [i0, i1] = seen(this.rowAt, dy + this.margin.top, dy + height);
    const [j0, j1] = seen(this.columnAt, dx + this.margin.left, dx + width);
    if ((i1 - i0) * (j1 - j0) > 20_000) return;
    this.hatch ??= this.hatched(context);
    context.font = this.font(10.5);
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let i = i0; i < i1; i++) {
      for (let j = j0; j < j1; j++) {
        const x = this.columnAt[j]! - dx, y = this.rowAt[i]! - dy;
        const l = look(heat, i, j);
        if (l.colour === null && this.hatch) {
          context.fillStyle = this.hatch;
          context.fillRect(x, y, cell, cell);
        } else if (cell >= 34 && l.colour) {
          context.fillStyle = inkOf(l.colour);
          context.fillText(l.text, x + cell / 2, y + cell / 2 + 0.5, cell - 4);
        } else if (l.estimated && l.colour) {
          context.fillStyle = inkOf(l.colour);
          context.globalAlpha = 0.55;
          context.fillRect(x + cell / 2 - 1, y + cell / 2 - 1, 2, 2);
          context.globalAlpha = 1;
        }
      }
    }
    context.strokeStyle = this.resolved(getComputedStyle(this.element).getPropertyValue("--card").trim());
    context.lineWidth = 1;
    context.beginPath();
    for (let i = i0; i <= i1 && i < this.rowAt.length; i++) {
      context.moveTo(this.margin.left, Math.round(this.rowAt[i]! - dy) + 0.5);
      context.lineTo(width, Math.round(this.rowAt[i]! - dy) + 0.5);
    }
    for (let j = j0; j <= j1 && j < this.columnAt.length; j++) {
      context.moveTo(Math.round(this.columnAt[j]! - dx) + 0.5, this.margin.top);
      context.lineTo(Math.round(this.columnAt[j]! - dx) + 0.5, Math.min(height, this.rowAt[this.rowAt.length - 1]! - dy));
    }
    context.stroke();
  }

  private hatched(context: CanvasRenderingContext2D): CanvasPattern | null {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const c = tile.getContext("2d")!;
    c.fillStyle = css(palette().unknown);
    c.fillRect(0, 0, 6, 6);
    c.strokeStyle = css(palette().hatch);
    c.beginPath();
    for (const at of [-6, 0, 6]) { c.moveTo(at, 6); c.lineTo(at + 6, 0); }
    c.stroke();
    return context.createPattern(tile, "repeat");
  }

  /** The cell under the pointer, the one with the focus and the chosen one. */
  private marks(context: CanvasRenderingContext2D, heat: Heat, dx: number, dy: number, accent: string, text: string): void {
    const cell = this.cell;
    const frame = ([i, j]: [number, number], colour: string, cross: boolean) => {
      const x = this.columnAt[j]! - dx, y = this.rowAt[i]! - dy;
      const least = Math.max(cell, 5), shift = (least - cell) / 2;
      if (cross) {
        context.fillStyle = colour;
        context.globalAlpha = 0.28;
        context.fillRect(this.margin.left, y, 1e5, Math.max(1, cell));
        context.fillRect(x, this.margin.top, Math.max(1, cell), 1e5);
        context.globalAlpha = 1;
      }
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.strokeRect(x - shift, y - shift, least, least);
    };
    if (this.hover) frame(this.hover, text, false);
    if (this.chosen) {
      const i = heat.from.findIndex((p) => p.name === this.chosen![0]), j = heat.to.findIndex((p) => p.name === this.chosen![1]);
      if (i >= 0 && j >= 0) frame([i, j], accent, true);
    }
    if (document.activeElement === this.scroller && this.scroller.matches(":focus-visible")) frame(this.focus, accent, false);
  }

  private names(context: CanvasRenderingContext2D, heat: Heat, dx: number, dy: number, width: number, height: number, text: string, quiet: string): void {
    const { left, top } = this.margin;
    const cell = this.cell;
    context.textBaseline = "middle";
    context.font = `600 ${this.font(11.5)}`;
    context.fillStyle = text;
    // A provider's name is in the middle of what is seen of it.
    const middle = (a: number, b: number, low: number, high: number) => (Math.max(a, low) + Math.min(b, high)) / 2;
    for (const c of runs(heat.to)) {
      const a = this.columnAt[c.start]! - dx, b = a + c.length * cell;
      const room = Math.min(b, width) - Math.max(a, left);
      if (room < 14) continue;
      context.textAlign = "center";
      context.fillText(cut(context, c.group, room - 4), middle(a, b, left, width), 11);
    }
    for (const r of runs(heat.from)) {
      const a = this.rowAt[r.start]! - dy, b = a + r.length * cell;
      const room = Math.min(b, height) - Math.max(a, top);
      if (room < 14) continue;
      context.save();
      context.translate(11, middle(a, b, top, height));
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText(cut(context, r.group, room - 4), 0, 0);
      context.restore();
    }
    if (!this.named()) return;
    context.font = this.font(11);
    context.fillStyle = quiet;
    heat.from.forEach((p, i) => {
      const y = this.rowAt[i]! - dy + cell / 2;
      if (y < top + 4 || y > height) return;
      context.textAlign = "right";
      context.fillText(cut(context, p.name, left - 30), left - 5, y);
    });
    heat.to.forEach((p, j) => {
      const x = this.columnAt[j]! - dx + cell / 2;
      if (x < left + 4 || x > width) return;
      context.save();
      context.translate(x, top - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(cut(context, p.name, top - 30), 0, 0);
      context.restore();
    });
  }

  /** The cell under the pointer. */
  private under(e: MouseEvent): [number, number] | null {
    if (!this.heat) return null;
    const box = this.scroller.getBoundingClientRect();
    const x = e.clientX - box.left, y = e.clientY - box.top;
    if (x < this.margin.left || y < this.margin.top || x > this.scroller.clientWidth || y > this.scroller.clientHeight) return null;
    const find = (at: number[], v: number) => {
      let low = 0, high = at.length - 1;
      while (low < high) {
        const mid = (low + high + 1) >> 1;
        if (at[mid]! <= v) low = mid;
        else high = mid - 1;
      }
      return low < at.length - 1 && v < at[low]! + this.cell ? low : -1;
    };
    const i = find(this.rowAt, y + this.scroller.scrollTop), j = find(this.columnAt, x + this.scroller.scrollLeft);
    return i < 0 || j < 0 ? null : [i, j];
  }

  private point(e: MouseEvent): void {
    this.hover = this.under(e);
    this.tip.hidden = this.hover === null;
    if (this.hover) {
      say(this.tip, sentence(this.heat!, ...this.hover));
      const box = this.element.getBoundingClientRect();
      const x = e.clientX - box.left, y = e.clientY - box.top;
      const right = x + 16 + this.tip.offsetWidth > box.width;
      this.tip.style.transform = `translate(${right ? Math.max(0, x - 12 - this.tip.offsetWidth) : x + 14}px, ${y + 16}px)`;
    }
    this.later();
  }

  private key(e: KeyboardEvent): void {
    const heat = this.heat;
    if (!heat) return;
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      this.onChoose(...this.focus);
      return;
    }
    if (!e.ctrlKey && !e.metaKey && "+-=0".includes(e.key)) {
      e.preventDefault();
      this.zoomBy(e.key === "0" ? 0 : e.key === "-" ? 0.8 : 1.25);
      return;
    }
    const to = moved(e.key, e.ctrlKey || e.metaKey, ...this.focus, heat);
    if (!to) return;
    e.preventDefault();
    this.focus = to;
    this.reveal(to, false);
    this.later();
    // Not for every cell that a held key passes.
    clearTimeout(this.spoken);
    this.spoken = window.setTimeout(() => say(this.live, sentence(heat, ...this.focus)), 150);
  }

  /** Scrolls a cell into sight, or into the middle. */
  private reveal([i, j]: [number, number], centre: boolean): void {
    const s = this.scroller;
    const cell = this.cell, { left, top } = this.margin;
    const x = this.columnAt[j]!, y = this.rowAt[i]!;
    if (centre) {
      s.scrollTo(x - (s.clientWidth + left) / 2, y - (s.clientHeight + top) / 2);
      return;
    }
    if (x - left < s.scrollLeft) s.scrollLeft = x - left;
    if (x + cell > s.scrollLeft + s.clientWidth) s.scrollLeft = x + cell - s.clientWidth;
    if (y - top < s.scrollTop) s.scrollTop = y - top;
    if (y + cell > s.scrollTop + s.clientHeight) s.scrollTop = y + cell - s.clientHeight;
  }
}

function inkOf(c: readonly [number, number, number]): string {
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] > 118 ? "#000" : "#fff";
}

/** Text as far as it has room. */
function cut(context: CanvasRenderingContext2D, text: string, room: number): string {
  if (context.measureText(text).width <= room) return text;
  while (text.length > 1 && context.measureText(`${text}…`).width > room) text = text.slice(0, -1);
  return text.length > 1 ? `${text}…` : "";
}
