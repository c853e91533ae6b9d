import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { digestOfSources } from "../scripts/sources.js";

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url));
const LARGEST = 8192; // bytes, gzipped, its header of help included

test("the bundle is what the sources give", () => {
  assert.ok(read("dist/client.js").includes(`(${digestOfSources()})`), "run `npm run build` in clients/js and commit what it writes");
});

const served = new URL("../../../src/aibos_realtime/admin/page/client.js", import.meta.url);
test("the server serves the same file", { skip: !existsSync(served) && "only in the repository" }, () => {
  assert.ok(read("dist/client.js").equals(readFileSync(served)));
});

test("the bundle stays small", () => {
  const size = gzipSync(read("dist/client.js"), { level: 9 }).length;
  assert.ok(size <= LARGEST, `${size} bytes`);
});

test("the bundle needs nothing else", () => {
  const text = read("dist/client.js")
    .toString()
    .replace(/^\/\*!.*?\*\//s, "");
  assert.doesNotMatch(text, /\bimport\b|\brequire\(/);
  assert.match(text, /export\{.*RealtimeClient/);
});

test("what is published is complete", () => {
  const { files, exports: entries } = JSON.parse(read("package.json"));
  for (const path of Object.values(entries).flatMap((entry) => (typeof entry === "string" ? [entry] : Object.values(entry)))) {
    assert.ok(existsSync(new URL(`../${path}`, import.meta.url)), path);
    assert.ok(path.endsWith("package.json") || files.some((file) => path.startsWith(`./${file}`)), path);
  }
});
