// The Node side of these tests: BullMQ and Bull Board, told what to do by lines of JSON.
//
//     node peer.mjs <port of Redis>
//
// A line of stdin is {"id": 1, "what": "call", …}: see `commands`. Its answer on stdout is
// {"id": 1, "value": …} or {"id": 1, "error": "…"}. Answers come in any order.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { ExpressAdapter } from '@bull-board/express'
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import * as bullmq from 'bullmq'
import { BullMQOtel } from 'bullmq-otel'
import express from 'express'

const requireAsBullMQ = createRequire(createRequire(import.meta.url).resolve('bullmq'))
const { CronExpressionParser } = requireAsBullMQ('cron-parser')

const connection = { host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null }

// The spans of queues and workers that are made with the option traced.
const exporter = new InMemorySpanExporter()
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register()

// The same tasks as in shared_queue.py, by the same names.
const tasks = {
  echo: async (job) => job.data.value,
  fail: async (job) => {
    if (job.attemptsMade < (job.data.times ?? Infinity)) throw new Error(job.data.message)
    return 'at last'
  },
  give_up: async (job) => {
    throw new bullmq.UnrecoverableError(job.data.message)
  },
  hold: (job) => new Promise((resolve) => held.set(job.id, resolve)),
  report: async (job) => {
    await job.updateProgress(job.data.progress)
    for (const line of job.data.lines) await job.log(line)
    return 'reported'
  },
  gather: async (job) => Object.values(await job.getChildrenValues()).sort(),
  // Adds a child in its first run, waits for it, and returns its result.
  step: async (job, token) => {
    if (!job.data.waited) {
      const children = new bullmq.Queue(job.data.queue, { connection })
      const parent = { id: job.id, queue: job.queueQualifiedName }
      await children.add('echo', { value: job.data.value }, { parent })
      await children.close()
      await job.updateData({ ...job.data, waited: true })
      if (await job.moveToWaitingChildren(token)) throw new bullmq.WaitingChildrenError()
    }
    return Object.values(await job.getChildrenValues())
  },
}

const held = new Map() // job id → the function that ends its run
const objects = new Map() // what `make` made, by its handle
const runs = new Map() // a worker's handle → its jobs, as they were when they began
const heard = new Map() // the handle of a QueueEvents → what it heard
const errors = [] // of workers and listeners
let board

const EVENTS = [
  'added', 'waiting', 'delayed', 'waiting-children', 'active', 'progress', 'completed', 'failed',
  'retries-exhausted', 'stalled', 'removed', 'duplicated', 'deduplicated', 'paused', 'resumed',
  'drained', 'cleaned',
]

const makers = {
  Queue: (_handle, name, options) => new bullmq.Queue(name, options),
  FlowProducer: (_handle, _name, options) => new bullmq.FlowProducer(options),
  QueueEventsProducer: (_handle, name, options) => new bullmq.QueueEventsProducer(name, options),
  QueueEvents: (handle, name, options) => {
    const events = new bullmq.QueueEvents(name, { lastEventId: '0', ...options })
    const list = []
    heard.set(handle, list)
    for (const event of EVENTS) events.on(event, (fields) => list.push({ event, ...fields }))
    return events
  },
  Worker: (handle, name, options) => {
    const list = []
    runs.set(handle, list)
    const run = (job, token) => {
      list.push(plain(job))
      return tasks[job.name](job, token)
    }
    return new bullmq.Worker(name, run, options)
  },
}

const commands = {
  async make({ kind, handle, queue, options: { traced, ...options } }) {
    if (traced) options.telemetry = new BullMQOtel('node')
    const object = makers[kind](handle, queue, { connection, ...options })
    object.on?.('error', (error) => errors.push(`${handle}: ${error.stack}`))
    objects.set(handle, object)
    await (object.waitUntilReady?.() ?? object.client)
  },
  call: ({ handle, method, args }) => objects.get(handle)[method](...args),
  async callJob({ handle, job, method, args }) {
    const found = await objects.get(handle).getJob(job)
    if (!found) throw new Error(`no job ${job}`)
    return found[method](...args.map((arg) => objects.get(arg) ?? arg))
  },
  runs: ({ handle }) => runs.get(handle),
  heard: ({ handle }) => heard.get(handle),
  errors: () => errors,
  spans: () =>
    exporter.getFinishedSpans().map((span) => ({
      name: span.name,
      trace: span.spanContext().traceId,
      span: span.spanContext().spanId,
      parent: span.parentSpanContext?.spanId ?? null,
    })),
  release({ job }) {
    held.get(job)(job)
    held.delete(job)
  },
  cron({ pattern, tz, after, count }) {
    const times = []
    for (let currentDate = after; times.length < count; times.push(currentDate)) {
      currentDate = CronExpressionParser.parse(pattern, { currentDate, tz }).next().getTime()
    }
    return times
  },
  async board({ handles }) {
    const serverAdapter = new ExpressAdapter()
    const queues = handles.map((handle) => new BullMQAdapter(objects.get(handle)))
    createBullBoard({ queues, serverAdapter })
    board = express().use(serverAdapter.getRouter()).listen(0, '127.0.0.1')
    await new Promise((resolve) => board.once('listening', resolve))
    return board.address().port
  },
  async reset() {
    board?.closeAllConnections()
    board?.close()
    board = undefined
    await Promise.all([...objects.values()].map((object) => object.close(true)))
    for (const map of [held, objects, runs, heard]) map.clear()
    errors.length = 0
    exporter.reset()
  },
}

const plain = (value) => (value === undefined ? null : JSON.parse(JSON.stringify(value)))

async function answer({ id, what, ...rest }) {
  try {
    return { id, value: plain(await commands[what](rest)) }
  } catch (error) {
    return { id, error: String(error.message ?? error) }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  answer(JSON.parse(line)).then((reply) => console.log(JSON.stringify(reply)))
}
process.exit() // whoever told us what to do is gone
