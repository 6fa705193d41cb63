// BullMQ in Node: the verbs of benchmarks/queues/contestant.py, with the same loops and counts.
// node bullmq.mjs VERB URL ARGUMENTS prints the result of the verb, as a line of JSON.

import { setTimeout as sleep } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';

const CHUNK = 1000;
const CONCURRENCY = 100;
const DAY_MS = 86_400_000;

const [verb, url, text] = process.argv.slice(2);
const { count, setting = '', pauses } = JSON.parse(text);

const settings = { maxRetriesPerRequest: null, enableAutoPipelining: /auto/.test(setting) };
const connection = new IORedis(url, settings);
// An option of the worker, as with hasten: an option of each job would be stored with the job.
const keep = { removeOnComplete: { count: 0 } };

// The clock of Python's time.monotonic_ns.
const clockNs = () => Number(process.hrtime.bigint());

function meter() {
  const start = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  return jobs => {
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    const used = process.cpuUsage(cpu);
    return { jobs, seconds, cpu_seconds: (used.user + used.system) / 1e6 };
  };
}

async function withQueue(work) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  try {
    return await work(queue);
  } finally {
    await queue.close();
  }
}

const add = (queue, number) => queue.add('noop', { number });

function addInChunks(opts) {
  return withQueue(async queue => {
    const read = meter();
    for (let start = 0; start < count; start += CHUNK) {
      const length = Math.min(CHUNK, count - start);
      const chunk = Array.from({ length }, (_, place) => (
        { name: 'noop', data: { number: start + place }, opts }
      ));
      await queue.addBulk(chunk);
    }
    return read(count);
  });
}

// Runs jobs until `ran` returns something other than undefined, which is the result.
async function work(concurrency, ran, ready = () => {}) {
  let finish;
  const finished = new Promise(resolve => { finish = resolve; });
  const handler = async job => {
    const result = ran(job.data.number);
    if (result !== undefined) finish(result);
  };
  const worker = new Worker('bench', handler, { connection, concurrency, ...keep });
  worker.on('error', error => { throw error; });
  await worker.waitUntilReady();
  ready();
  const result = await finished;
  await worker.close();
  return result;
}

const verbs = {
  fill: () => addInChunks({}),
  fill_delayed: () => addInChunks({ delay: DAY_MS }),
  bulk: () => addInChunks({}),

  enqueue: () => withQueue(async queue => {
    let next = 0;
    const caller = async () => {
      while (next < count) await add(queue, next++);
    };
    const read = meter();
    await Promise.all(Array.from({ length: parseInt(setting) }, caller));
    return read(count);
  }),

  drain: () => {
    const seen = new Set();
    let read;
    return work(parseInt(setting), number => {
      if (seen.size === 0) read = meter();
      const before = seen.size;
      seen.add(number);
      return seen.size === count && before < count ? read(count) : undefined;
    });
  },

  send: () => withQueue(async queue => {
    for (const pause of pauses) {
      await sleep(pause * 1000);
      await add(queue, clockNs());
    }
    return null;
  }),

  // The first job is not measured, because its sender has to connect.
  receive: () => {
    const waited = [];
    const ran = number => {
      waited.push((clockNs() - number) / 1e6);
      return waited.length > count ? waited.slice(1) : undefined;
    };
    return work(CONCURRENCY, ran, () => console.log('ready'));
  },
};

console.log(JSON.stringify(await verbs[verb]()));
process.exit(0);
