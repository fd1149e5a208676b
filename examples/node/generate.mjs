// Makes an image from a bundle that `sdrt bundle` wrote.
//
//   node generate.mjs BUNDLE PROMPT IMAGE.png [SEED]

import * as ort from "onnxruntime-node";
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { PNG } from "pngjs";

const [bundle, prompt, output, seed = "0"] = process.argv.slice(2);
if (output === undefined) {
  console.error("usage: node generate.mjs BUNDLE PROMPT IMAGE.png [SEED]");
  process.exit(2);
}

// The bundle contains the code of the loop.
const { Pipeline } = await import(pathToFileURL(resolve(bundle, "sdrt.mjs")));
const pipeline = await Pipeline.open(
  ort,
  (name) => readFile(join(bundle, name), "utf8"),
  (name) => ort.InferenceSession.create(join(bundle, name), { logSeverityLevel: 3 }),
);
const onStep = (done, all) => process.stderr.write(`\rstep ${done} of ${all}${done === all ? "\n" : ""}`);
const { width, height, data } = await pipeline.generate(prompt, { seed: BigInt(seed), onStep });
await pipeline.release();

const png = new PNG({ width, height });
png.data.set(data);
await writeFile(output, PNG.sync.write(png, { colorType: 2 }));
