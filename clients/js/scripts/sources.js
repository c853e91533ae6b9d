/** A digest of everything that the bundle is made of; the bundle carries it, so that drift shows without building. */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";

const at = (path) => new URL(`../${path}`, import.meta.url);

export const digestOfSources = () => {
  const files = [
    ...readdirSync(at("src/"))
      .sort()
      .map((name) => `src/${name}`),
    "scripts/build.js",
    "scripts/header.txt",
  ];
  const hash = createHash("sha256");
  for (const file of files) hash.update(`${file}\0`).update(readFileSync(at(file)));
  return hash.digest("hex").slice(0, 16);
};
