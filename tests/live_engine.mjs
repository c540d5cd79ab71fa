// Runs calls of the engine for tests/test_live_engine.py: takes the folder of the engine and a file of cases, each a
// function body over (engine, data), and prints what they return as JSON.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, cases] = process.argv.slice(2);
const engine = await import(pathToFileURL(`${folder}/index.js`));
const plain = (_, value) => {
  if (ArrayBuffer.isView(value)) return Array.from(value, (v) => (Number.isFinite(v) ? v : String(v)));
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
};
const answers = {};
for (const [name, { body, data }] of Object.entries(JSON.parse(readFileSync(cases, "utf8")))) {
  try {
    answers[name] = new Function("engine", "data", "readFileSync", body)(engine, data, readFileSync);
  } catch (error) {
    answers[name] = `${error.name}: ${error.message}`;
  }
}
console.log(JSON.stringify(answers, plain));
