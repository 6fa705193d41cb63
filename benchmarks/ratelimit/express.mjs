// The workloads of workloads/ for express-rate-limit: node --expose-gc express.mjs NAME ARGUMENTS
// Prints the result as JSON.
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import express from "express";
import { MemoryStore, rateLimit } from "express-rate-limit";
import { RedisStore } from "rate-limit-redis";
import { createClient } from "redis";

const BODY = '{"ok":true}';
const CONCURRENT = 100;
const COUNTED = 1_000;
const CALLS = 200;
const PATHS = {
  "/free": [],
  "/one": [[10_000, 3_600]],
  "/three": [[10_000, 60], [50_000, 3_600], [100_000, 86_400]],
  "/denied": [[1, 3_600]],
};
const POLICIES = PATHS["/three"];
const DENYING = [[1, 3_600], [2, 7_200], [3, 86_400]];

const turn = () => new Promise((resolve) => setImmediate(resolve));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const address = (n) => `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;
const CLIENTS = Array.from({ length: 1_000 }, (_, n) => address(n));

// An application's calls, without a connection --------------------------------------------------

class Peer extends Socket {
  constructor(client) {
    super();
    this.client = client;
  }
  get remoteAddress() {
    return this.client;
  }
}
const PEERS = new Map();
function peer(client) {
  if (!PEERS.has(client)) PEERS.set(client, new Peer(client));
  return PEERS.get(client);
}

/** Resolves with the response when it has ended. */
function call(app, path, client, method = "GET") {
  return new Promise((resolve, reject) => {
    const request = new IncomingMessage(peer(client));
    request.method = method;
    request.url = path;
    request.headers = { host: "127.0.0.1:8000", accept: "application/json" };
    const response = new ServerResponse(request);
    const end = response.end;
    response.end = (...parts) => {
      end.apply(response, parts);
      response.emit("finish"); // there is no connection that would emit it
      resolve(response);
      return response;
    };
    app(request, response, reject);
  });
}

function limiter([limit, seconds], options = {}) {
  return rateLimit({
    limit, windowMs: seconds * 1_000, standardHeaders: "draft-8", legacyHeaders: true,
    validate: false, // its checks are for development
    ...options,
  });
}

function application(paths, storeOf = () => undefined) {
  const app = express();
  app.disable("etag");
  app.disable("x-powered-by");
  for (const [path, rates] of Object.entries(paths)) {
    rates.forEach((rate, n) => app.use(path, limiter(rate, { store: storeOf(`${path}:${n}:`) })));
    app.get(path, (_, response) => response.type("json").send(BODY));
  }
  return app;
}
const unlimited = (paths) => application(Object.fromEntries(Object.keys(paths).map((p) => [p, []])));

/** Processor time of all threads. */
function microseconds(start) {
  const { user, system } = process.cpuUsage(start);
  return user + system;
}

// The workloads ---------------------------------------------------------------------------------

async function hits({ repeats }) {
  const store = new MemoryStore();
  store.init({ windowMs: 3_600_000 });
  const keys = Array.from({ length: 1_000 }, (_, n) => `client-${n}`);
  let ns = Infinity;
  for (let n = 0; n < repeats * 5; n++) { // the compiler needs some thousand calls
    const start = process.cpuUsage();
    for (const key of keys) await store.increment(key);
    ns = Math.min(ns, (microseconds(start) * 1e3) / keys.length);
  }
  for (let n = 0; n < 10_000; n++) await store.increment(`other-${n}`);
  const taken = [];
  for (let n = 0; n < 200; n++) {
    const start = performance.now();
    await store.increment(`other-${n}`);
    await turn();
    taken.push((performance.now() - start) * 1e3);
  }
  store.shutdown();
  return { "fixed window": { ns, turning_us: taken.sort((a, b) => a - b)[100] } };
}

async function overhead({ repeats }) {
  const apps = { us: application(PATHS), bare_us: unlimited(PATHS) };
  const found = {};
  for (const path of Object.keys(PATHS)) {
    let response;
    for (let n = 0; n < 10_000; n++) {
      await call(apps.bare_us, path, CLIENTS[n % CLIENTS.length]);
      response = await call(apps.us, path, CLIENTS[n % CLIENTS.length]);
      // High limits are for requests that pass.
      if (path !== "/denied" && response.statusCode !== 200) throw new Error(`${path} is denied`);
    }
    if (path === "/denied" && response.statusCode !== 429) throw new Error("a request is not denied");
    found[path] = { us: Infinity, bare_us: Infinity, headers: response.getHeaders() };
  }
  for (const [path, seen] of Object.entries(found)) {
    for (let n = 0; n < repeats * 5; n++) { // the compiler optimizes for a long time
      for (const kind of ["bare_us", "us"]) {
        const start = process.cpuUsage();
        for (let i = 0; i < CALLS; i++) await call(apps[kind], path, CLIENTS[i]);
        seen[kind] = Math.min(seen[kind], microseconds(start) / CALLS);
      }
    }
  }
  return found;
}

async function redis({ url, seconds }) {
  const client = await createClient({ url }).connect();
  await client.flushAll();
  const sendCommand = (...parts) => client.sendCommand(parts);
  const storeOf = (prefix) => new RedisStore({ sendCommand, prefix });
  const server = await createClient({ url }).connect();
  const found = {};
  const incrementing = (rates, prefix) => {
    const stores = rates.map(([, windowSeconds], n) => {
      const store = storeOf(`${prefix}:${n}:`);
      store.init({ windowMs: windowSeconds * 1_000 });
      return store;
    });
    return async (name) => {
      for (const [n, store] of stores.entries()) {
        if ((await store.increment(name)).totalHits > rates[n][0]) return false;
      }
      return true;
    };
  };
  found.library = await onRedis(
    incrementing(POLICIES, "hit"), incrementing(DENYING, "deny"), server, url, seconds,
  );
  const app = application({ "/three": POLICIES, "/denied": DENYING }, storeOf);
  const asking = (path) => async (name) => (await call(app, path, name)).statusCode === 200;
  found.application = await onRedis(asking("/three"), asking("/denied"), server, url, seconds);
  await client.close();
  await server.close();
  return found;
}

async function onRedis(passing, denying, server, url, seconds) {
  await run(passing, { count: CONCURRENT * 50 }); // opens connections, loads scripts, compiles functions
  let [executed, busy] = [await executedBy(server), await serverSeconds(server)];
  const [cpu, start] = [process.cpuUsage(), performance.now()];
  const done = await run(passing, { seconds });
  const taken = (performance.now() - start) / 1e3;
  const cpu_us = microseconds(cpu) / done;
  executed = (await executedBy(server)) - executed;
  busy = (await serverSeconds(server)) - busy;
  const sent = await commands(passing, server, url);
  for (let n = 0; n < 3; n++) await denying(CLIENTS[0]);
  const again = () => denying(CLIENTS[0]);
  await run(again, { count: CONCURRENT * 5, denied: true });
  const denied = await commands(again, server, url, true);
  return {
    per_second: done / taken,
    cpu_us,
    server_us: (busy / done) * 1e6,
    sent,
    executed: executed / done,
    denied_sent: denied,
  };
}

async function run(request, { count = Infinity, seconds = Infinity, denied = false }) {
  const end = performance.now() + seconds * 1e3;
  let [number, done] = [0, 0];
  const caller = async () => {
    while (number < count && performance.now() < end) {
      if ((await request(CLIENTS[number++ % CLIENTS.length])) === denied) {
        throw new Error(denied ? "a request was allowed" : "a request was denied");
      }
      done++;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT }, caller));
  return done;
}

/** Returns how many commands reach the server for each request, without those of scripts. */
async function commands(request, server, url, denied = false) {
  const monitor = await createClient({ url }).connect();
  let sent = 0;
  let isOver;
  const over = new Promise((resolve) => (isOver = resolve));
  await monitor.monitor((line) => {
    if (line.includes('"the end"')) isOver();
    else if (!line.includes(" lua]")) sent++;
  });
  await run(request, { count: COUNTED, denied });
  await server.echo("the end");
  await over;
  monitor.destroy();
  return sent / COUNTED;
}

/** Returns the number of all commands so far, with those of scripts. */
async function executedBy(server) {
  let calls = 0;
  for (const line of (await server.info("commandstats")).split("\r\n")) {
    const found = /^cmdstat_(\S+?):calls=(\d+)/.exec(line);
    if (found && found[1] !== "info") calls += Number(found[2]);
  }
  return calls;
}

async function serverSeconds(server) {
  const text = await server.info("cpu");
  const read = (name) => Number(new RegExp(`${name}:([\\d.]+)`).exec(text)[1]);
  return read("used_cpu_user") + read("used_cpu_sys");
}

async function memory({ url, keys, redis_keys }) {
  const store = new MemoryStore();
  store.init({ windowMs: 900_000 });
  for (let n = 0; n < 1_000; n++) await store.increment(address(n));
  const before = heap();
  for (let n = 1_000; n < 1_000 + keys; n++) await store.increment(address(n));
  const total = heap() - before;
  store.shutdown();
  const found = { bytes: total / keys, total };
  if (redis_keys) {
    const client = await createClient({ url }).connect();
    await client.flushAll();
    const onRedis = new RedisStore({ sendCommand: (...parts) => client.sendCommand(parts) });
    onRedis.init({ windowMs: 900_000 });
    await onRedis.increment("203.0.113.1");
    const used = async () => Number(/used_memory:(\d+)/.exec(await client.info("memory"))[1]);
    const start = await used();
    for (let n = 0; n < redis_keys; n++) await onRedis.increment(address(n));
    found.redis_bytes = ((await used()) - start) / redis_keys;
    await client.close();
  }
  return found;
}

/** Returns the size of live objects, because Node decides how much free memory a process keeps. */
function heap() {
  globalThis.gc();
  globalThis.gc();
  return process.memoryUsage().heapUsed;
}

async function correctness() {
  return { logins: await logins(), seam: { "fixed window": await seam() } };
}

async function logins() {
  const rate = [5, 3_600];
  const bad = loginApplication(rate);
  const good = loginApplication(rate);
  await allAtOnce(bad, "/login?bad");
  const answers = await allAtOnce(good, "/login?good");
  const later = [];
  for (let n = 0; n < rate[0]; n++) {
    later.push((await call(good.app, "/login?good", "203.0.113.7", "POST")).statusCode);
  }
  return {
    bad_tried: bad.reached,
    good_in: answers.filter((answer) => answer.statusCode === 200).length,
    good_later: later.filter((status) => status === 200).length,
  };
}

function loginApplication(rate) {
  const found = { app: express(), reached: 0, answered: 0 };
  found.opened = new Promise((resolve) => (found.open = resolve));
  found.app.use("/login", limiter(rate, { skipSuccessfulRequests: true }));
  found.app.post("/login", async (request, response) => {
    found.reached++;
    await found.opened;
    response.status(request.url.endsWith("good") ? 200 : 401).end();
  });
  return found;
}

async function allAtOnce(login, path) {
  const calls = [];
  for (let n = 0; n < 30; n++) {
    calls.push(call(login.app, path, "203.0.113.7", "POST").finally(() => login.answered++));
    await turn(); // its memory store needs requests one after the other
  }
  while (login.reached + login.answered < 30) await turn();
  login.open();
  const answers = await Promise.all(calls);
  await turn(); // it may uncount hits after the response
  return answers;
}

async function seam() {
  const store = new MemoryStore();
  store.init({ windowMs: 1_000 });
  const isAllowed = async () => (await store.increment("client")).totalHits <= 100;
  await isAllowed();
  await sleep(900);
  const begin = performance.now();
  let passed = 0;
  while (performance.now() - begin < 990) {
    while (await isAllowed()) passed++;
    await sleep(5);
  }
  store.shutdown();
  return passed;
}

const [name, options] = process.argv.slice(2);
const found = await { hits, overhead, redis, memory, correctness }[name](JSON.parse(options));
process.stdout.write(`${JSON.stringify(found)}\n`, () => process.exit(0));
