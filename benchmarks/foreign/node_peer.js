// Node as a peer; see benchmarks/_python_peer.py for the orders.
//
// Pinned as Node's documentation shows it: checkServerIdentity, after tls.checkServerIdentity. The https Agent resumes
// sessions by default, and then checkServerIdentity is not called.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const https = require("https");
const readline = require("readline");
const tls = require("tls");

function make(config, cold) {
  const options = { keepAlive: !cold, maxSockets: 100, ca: fs.readFileSync(config.roots) };
  if (config.peer.includes("no session cache")) options.maxCachedSessions = 0;
  if (config.pinned) {
    options.checkServerIdentity = (host, certificate) => {
      const error = tls.checkServerIdentity(host, certificate);
      if (error) return error;
      const key = new crypto.X509Certificate(certificate.raw).publicKey.export({ type: "spki", format: "der" });
      const pin = "sha256/" + crypto.createHash("sha256").update(key).digest("base64");
      return config.pins.includes(pin) ? undefined : new Error("pin mismatch: " + pin);
    };
  }
  const agent = new https.Agent(options);
  const get = () =>
    new Promise((resolve, reject) => {
      https
        .get(config.url, { agent }, (response) => {
          let body = "";
          response.on("data", (data) => (body += data));
          response.on("end", () => resolve([response.headers["x-resumed"], response.statusCode, body.length]));
          response.on("error", reject);
        })
        .on("error", reject);
    });
  return { get, close: () => agent.destroy() };
}

async function sample(peer, order) {
  const { requests, concurrency = 1 } = order;
  const first = order.first ?? 2 * concurrency;
  let started = 0, done = 0, resumed = 0, begin, end;
  const own = [];
  const now = () => {
    const usage = process.cpuUsage();
    return [usage.user + usage.system, Number(process.hrtime.bigint()) / 1e3];
  };
  const work = async () => {
    while (started < first + requests) {
      started++;
      const sent = Number(process.hrtime.bigint());
      const [how, status, length] = await peer.get();
      if (status !== 200 || length !== 100) throw new Error(`status ${status} and ${length} bytes, not 200 and 100`);
      done++;
      if (done === first) begin = now();
      else if (done > first) {
        own.push((Number(process.hrtime.bigint()) - sent) / 1e3);
        resumed += how === "r" ? 1 : 0;
      }
      if (done === first + requests) end = now();
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  return {
    cpu: (end[0] - begin[0]) / requests, wall: (end[1] - begin[1]) / requests, resumed: resumed / requests, own,
  };
}

async function probe(config) {
  const peer = make(config, true);
  try {
    const [, status] = await peer.get();
    return { accepted: status === 200, error: "" };
  } catch (error) {
    return { accepted: false, error: String(error).slice(0, 200) };
  } finally {
    peer.close();
  }
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const config = JSON.parse((await lines.next()).value);
  const peers = {};
  console.log(JSON.stringify({ node: process.version, openssl: process.versions.openssl }));
  for await (const line of lines) {
    const order = JSON.parse(line);
    if (order.kind === "probe") console.log(JSON.stringify(await probe({ ...config, ...order })));
    else {
      peers[order.kind] ??= make(config, order.kind === "cold");
      console.log(JSON.stringify(await sample(peers[order.kind], order)));
    }
  }
  for (const peer of Object.values(peers)) peer.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
