// Runs a model on XNNPACK in onnxruntime-web: node xnnpack.cjs JOB.json RESULT.json
// The verbose log on standard error says where each node was placed.
"use strict";
const fs = require("fs");
const path = require("path");

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

function tensor(ort, { type, dims, data }) {
  if (!(type in ARRAYS)) throw new Error(`inputs of type ${type} can't be given to it`);
  const bytes = Buffer.from(data, "base64");
  const aligned = new Uint8Array(bytes).buffer;
  return new ort.Tensor(type, new ARRAYS[type](aligned), dims);
}

function plain({ type, dims, data }) {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { type, dims, data: bytes.toString("base64") };
}

async function main(job) {
  const ort = require("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "verbose";
  const session = await ort.InferenceSession.create(job.model, {
    executionProviders: ["xnnpack"],
    logSeverityLevel: 0,
  });
  const outputs = [];
  for (const feed of job.feeds) {
    const values = {};
    for (const [name, value] of Object.entries(feed)) values[name] = tensor(ort, value);
    const found = await session.run(values);
    const kept = {};
    for (const [name, value] of Object.entries(found)) kept[name] = plain(value);
    outputs.push(kept);
  }
  const main = require.resolve("onnxruntime-web");
  const about = path.join(main.slice(0, main.lastIndexOf("onnxruntime-web")), "onnxruntime-web");
  const { version } = JSON.parse(fs.readFileSync(path.join(about, "package.json")));
  return { outputs, version };
}

const [, , jobPath, resultPath] = process.argv;
const job = JSON.parse(fs.readFileSync(jobPath));
main(job)
  .catch((error) => ({ error: String((error && error.message) || error), code: error && error.code }))
  .then((result) => {
    fs.writeFileSync(resultPath, JSON.stringify(result));
    process.exit(0);
  });
