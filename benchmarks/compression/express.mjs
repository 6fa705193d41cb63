// The application of application.py on Express: node express.mjs yes|no FOLDER SETTINGS
// The first argument says whether responses are compressed. It prints the port that it listens on.
import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import compression from "compression";
import express from "express";

const [compresses, folder, settings] = process.argv.slice(2);
const { streams, events, interval_seconds } = JSON.parse(settings);
const TYPES = { json: "application/json", html: "text/html; charset=utf-8", png: "image/png" };
const TICK_MS = 1;

const app = express();
app.disable("etag"); // so that the hashing of bodies is not measured
app.disable("x-powered-by");
if (compresses === "yes") app.use(compression());

for (const name of readdirSync(folder)) {
  if (name === "events.json") continue;
  const body = readFileSync(join(folder, name));
  const type = TYPES[name.split("-")[0]];
  app.get(`/${name}`, (_, response) => response.set("Content-Type", type).send(body));
}
app.get("/empty", (_, response) => response.status(204).end());

let due = null;
let longest = 0;
function tick() {
  const now = performance.now();
  if (due !== null) longest = Math.max(longest, now - due);
  due = now + TICK_MS;
  setTimeout(tick, TICK_MS);
}
app.get("/ticker", (_, response) => {
  if (due === null) tick();
  response.json({ longest_ms: longest });
  longest = 0;
});

const texts = JSON.parse(readFileSync(join(folder, "events.json"), "utf-8"));
const all = [];
let sent = 0;
const state = () => ({ open: all.length, sent });
app.get("/streams", (_, response) => response.json(state()));
app.get("/go", (_, response) => {
  for (const start of all) start();
  response.json(state());
});
app.get("/end", (_, response) => {
  response.json(state());
  for (const start of all) start.response.end();
});
app.get("/stream", (request, response) => {
  const number = Number(request.url.split("?")[1]);
  response.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.flushHeaders();
  const start = () => {
    const begin = performance.now() + (number / streams) * interval_seconds * 1000;
    let event = 0;
    const send = () => {
      const text = texts[(number * 7 + event) % texts.length];
      response.write(`data: {"at":${process.hrtime.bigint()}${text}`);
      response.flush?.(); // as the documentation of compression demands for streams
      sent += 1;
      event += 1;
      if (event < events) next();
    };
    const next = () => setTimeout(send, begin + event * interval_seconds * 1000 - performance.now());
    next();
  };
  start.response = response;
  all.push(start);
});

const server = createServer(app);
server.keepAliveTimeout = 120_000;
server.listen(0, "127.0.0.1", 2048, () => console.log(server.address().port));
