// The page: which view is shown, and asking the server what has changed.

import { getOverview, now, Refused, type Overview } from "./api";
import { h, refill, say } from "./dom";
import { span, time } from "./format";
import { MatrixView } from "./matrix";
import { NodesView } from "./nodes";
import { PlacementsView } from "./placements";
import { retheme } from "./scale";
import { TargetsView } from "./targets";

export interface View {
  readonly element: HTMLElement;
  /** There is something new. Called only of the view that is shown. */
  update(overview: Overview): void;
  /** The view is in the page now. */
  shown(): void;
  /** Colours are others now. */
  themed(): void;
}

const openNode = (name: string) => { location.hash = `#nodes/${encodeURIComponent(name)}`; };
const nodes = new NodesView(openNode);
const views: Record<string, { title: string; view: View }> = {
  matrix: { title: "Matrix", view: new MatrixView(openNode) },
  nodes: { title: "Nodes", view: nodes },
  targets: { title: "Targets", view: new TargetsView() },
  placements: { title: "Placements", view: new PlacementsView() },
};

const main = document.getElementById("main")!;
const status = document.getElementById("status")!;
const problems = document.getElementById("problems")!;
const age = h("span", { class: "age" });
const told = h("span", { class: "told" });
const dot = h("span", { class: "dot", "aria-hidden": "true" });
status.append(dot, told);
status.after(age);

let overview: Overview | null = null;
let current = "";
let lost = 0; // since when the server has not answered; 0 if it does
let reason = "";

function route(): void {
  const [name = "", argument = ""] = location.hash.slice(1).split("/");
  const next = name in views ? name : "matrix";
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#${next}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${views[next]!.title} · netlatency`;
  if (next === "nodes") nodes.select(decodeURIComponent(argument));
  if (next === current || !overview) return;
  current = next;
  refill(main, views[next]!.view.element);
  views[next]!.view.shown();
  views[next]!.view.update(overview);
}

async function poll(): Promise<void> {
  try {
    const next = await getOverview();
    lost = 0;
    const changed = next.version !== overview?.version;
    overview = next;
    if (changed) {
      if (current === "") route();
      else views[current]!.view.update(overview);
    }
  } catch (e) {
    // A refusal is an answer: it has just not read the cluster yet.
    if (e instanceof Refused && !overview) refill(main, h("p", { class: "empty" }, e.status === 503 ? "Reading the cluster …" : `The server refuses: ${e.message}.`));
    else if (!lost) { lost = Date.now(); reason = (e as Error).message; }
  }
  tell();
  const interval = overview ? overview.interval_ms || 30_000 : 1000;
  setTimeout(() => void poll(), lost ? 2000 : Math.min(Math.max(interval / 2, 500), 15_000));
}

/** Says how fresh all this is. */
function tell(): void {
  const o = overview;
  let tone = "good", text = "", ago = "";
  const messages: (string | HTMLElement)[] = [];
  if (o) {
    const old = (now() - o.taken) / 1000;
    const late = o.interval_ms > 0 && old * 1000 > 3 * o.interval_ms + 5000;
    ago = o.recording ? `recorded ${time(o.taken, now())}` : `read ${span(old)} ago`;
    text = o.recording ? `Recording ${o.recording}` : `${o.answered} of ${o.agents} agents answered`;
    const silent = o.nodes.filter((n) => n.agent === "silent");
    if (o.recording) tone = "plain";
    else if (late || o.answered === 0) tone = "bad";
    else if (o.answered < o.agents || o.problems.length) tone = "warn";
    if (late && !lost) messages.push(`The agents were last read ${span(old)} ago, although they are read every ${span(o.interval_ms / 1000)}.`);
    if (silent.length) {
      const names = silent.slice(0, 6).map((n) => n.name).join(", ");
      messages.push(`${silent.length === 1 ? "The agent" : `${silent.length} agents`} on ${names}${silent.length > 6 ? ` and ${silent.length - 6} more` : ""} did not answer. What ${silent.length === 1 ? "it" : "they"} measured last is shown until it is an hour old.`);
    }
    messages.push(...o.problems.map((p) => `${p[0]?.toUpperCase() ?? ""}${p.slice(1)}`));
  }
  if (lost) {
    tone = "bad";
    text = "Server unreachable";
    messages.unshift(`The server of this page has not answered for ${span((Date.now() - lost) / 1000)} (${reason}). ${o ? `What is shown was read ${span((now() - o.taken) / 1000)} ago.` : ""} Is kubectl netlatency ui still running?`);
  }
  dot.className = `dot ${tone}`;
  say(told, text); // a status: what does not change is not read out again
  say(age, ago);
  document.documentElement.classList.toggle("lost", lost > 0);
  const key = messages.join("\n");
  if (problems.dataset.key !== key) {
    problems.dataset.key = key;
    refill(problems, ...messages.map((m) => h("p", { class: "problem" }, m)));
  }
}

// The theme is the system's unless somebody chooses.
const themes = ["", "light", "dark"];
const themeNames: Record<string, string> = { "": "Auto", light: "Light", dark: "Dark" };
let theme = "";
try { theme = localStorage.getItem("theme") ?? ""; } catch { /* not allowed to remember */ }
const themeButton = h("button", { class: "theme", click: () => setTheme(themes[(themes.indexOf(theme) + 1) % themes.length]!) });
document.getElementById("theme")!.append(themeButton);
function setTheme(next: string): void {
  theme = themes.includes(next) ? next : "";
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("theme", theme); } catch { /* not allowed to remember */ }
  say(themeButton, `Theme: ${themeNames[theme]}`);
  themed();
}
function themed(): void {
  retheme();
  if (current) views[current]!.view.themed();
}
setTheme(theme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);

document.getElementById("views")!.append(h("ul", {}, ...Object.entries(views).map(([name, { title }]) => h("li", {}, h("a", { href: `#${name}` }, title)))));
window.addEventListener("hashchange", route);
setInterval(tell, 1000);
void poll();
