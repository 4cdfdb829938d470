// Bundles the page into pkg/ui/assets, which is committed and embedded: building
// netlatency takes no Node. The same sources give the same bytes.
import { build } from "esbuild";
import { copyFile, mkdir, readFile } from "node:fs/promises";

const out = process.argv[2] ?? "../pkg/ui/assets";
await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: "src/main.ts", style: "src/style.css" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  // Two years of browsers.
  target: ["es2022", "chrome123", "firefox120", "safari17.5"],
  // The licence of what is in it asks for being with it.
  banner: { js: `/*! with uPlot:\n${await readFile("node_modules/uplot/LICENSE", "utf8")}*/` },
  charset: "utf8",
  logLevel: "warning",
});
for (const file of ["index.html", "favicon.svg"]) {
  await copyFile(`src/${file}`, `${out}/${file}`);
}
