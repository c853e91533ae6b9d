/**
 * Makes the single file for browsers from `src/`: `dist/client.js`, and the same file where the Python server takes it from for `/client.js`.
 * With --check it writes nothing, and fails where a committed file is not what the sources give.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { buildSync } from "esbuild";
import { minify } from "terser";
import { digestOfSources } from "./sources.js";

const at = (path) => new URL(`../${path}`, import.meta.url);
const { version } = JSON.parse(readFileSync(at("package.json"), "utf8"));

const { outputFiles } = buildSync({
  entryPoints: [at("src/index.js").pathname],
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  minifySyntax: true,
  minifyWhitespace: true,
  write: false,
});

// Names alone: terser finds shorter ones than esbuild. What begins with _ is the client's own.
const { code } = await minify(outputFiles[0].text, { module: true, compress: false, mangle: { properties: { regex: /^_[a-z]/i } } });

const header = readFileSync(at("scripts/header.txt"), "utf8").trim().replace("VERSION", version).replace("DIGEST", digestOfSources());

for (const path of ["dist/client.js", "../../src/aibos_realtime/admin/page/client.js"]) {
  const text = `${header}\n${code}\n`;
  if (!process.argv.includes("--check")) writeFileSync(at(path), text);
  else if (readFileSync(at(path), "utf8") !== text) {
    console.error(`${path} is not what src/ gives: run \`npm run build\` in clients/js and commit it.`);
    process.exitCode = 1;
  }
}
