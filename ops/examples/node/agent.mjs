// An agent of troupe in JavaScript. It knows Kafka and Avro and nothing of the product but its topics; README.md has the
// contract that it keeps, and the numbers in the comments are the numbers there.
//
//   KAFKA=127.0.0.1:9092 node agent.mjs words.mjs

import './version.mjs'
import { randomUUID } from 'node:crypto'
import { resolve } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Admin, Consumer, ProduceAcks, Producer, compatibilityPartitioner } from '@platformatic/kafka'
import { Wire } from './wire.mjs'

const { definition, handle } = await import(pathToFileURL(resolve(process.argv[2] ?? 'words.mjs')))
const bootstrapBrokers = (process.env.KAFKA ?? '127.0.0.1:9092').split(',')
const prefix = process.env.TOPIC_PREFIX ?? ''
const me = definition.agent_id
const inbox = `${prefix}agents.${me}.inbox`
const START_LIMIT_MS = 30_000
const DRAIN_LIMIT_MS = 30_000
const MOMENT_MS = 250
const REMEMBERED = 10_000

const now = () => Date.now() * 1000 // instants are microseconds
const tell = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }))

const wire = await Wire.open(bootstrapBrokers, [
  'agents.commands-value', 'agents.inbox-value', 'tasks.reports-value', 'tasks.deadletters-value'
])
const producer = new Producer({
  bootstrapBrokers, clientId: me, acks: ProduceAcks.ALL, partitioner: compatibilityPartitioner
})

// Resolves when the broker has the record, on all in-sync replicas. What fails for good ends the process (8).
const send = (topic, key, record) => producer.send({
  messages: [{ topic: prefix + topic, key: Buffer.from(key), value: wire.encode(`${topic}-value`, record) }]
})
const command = (kind, part = {}) => send('agents.commands', me, {
  event_id: randomUUID(), occurred_at: now(), source: me, kind, agent_id: me, ...part
})

// --- what is in hand

const hand = new Map() // task_id + epoch -> { abort, places }
const past = new Map() // the same of what is over, oldest first (4)
const offsets = new Map() // partition -> { open: offsets in hand, next: one past the last taken, saved }
let draining = false // the inbox said stop, and nothing came after it
let drained = false // and the registry has heard that all is done
let leaving = false // we were asked to end
let pulse = Promise.resolve() // heartbeats go out one after the other
let stream

const identity = ({ task_id: taskId, epoch }) => `${taskId} ${epoch}`

function remember (known) {
  past.set(known, true)
  if (past.size > REMEMBERED) past.delete(past.keys().next().value)
}

function take ({ partition, offset }) {
  const place = offsets.get(partition) ?? { open: new Set(), next: offset, saved: offset }
  place.open.add(offset)
  if (offset >= place.next) place.next = offset + 1n
  offsets.set(partition, place)
}

function done (places) {
  for (const { partition, offset } of places) offsets.get(partition).open.delete(offset)
  if (draining && hand.size === 0) beat() // the registry waits for this one
}

// (6) Only the offset before which nothing is open is committed; what is beyond it comes again after a crash.
async function commit () {
  for (const [partition, place] of offsets) {
    const offset = [...place.open].reduce((least, each) => (each < least ? each : least), place.next)
    if (offset === place.saved) continue
    try {
      await consumer.commit({ offsets: [{ topic: inbox, partition, offset, leaderEpoch: -1 }] })
      place.saved = offset
    } catch (error) {
      tell('not committed', { error: error.message }) // a rebalance, most likely: it is delivered again and known (4)
    }
  }
}

// --- what the inbox says

async function receive (message) {
  take(message)
  const position = `${message.topic}.${message.partition}.${message.offset}`
  let record
  try {
    record = await wire.decode(message.value)
  } catch (error) {
    return bury(message, position, error)
  }
  if (record.kind === 'assign') return work(record.task, record.correlation_id, position, message)
  if (record.kind === 'cancel') {
    remember(identity(record)) // (5) also if it never began
    hand.get(identity(record))?.abort.abort()
  } else if (record.kind === 'stop') {
    draining = true // (9) finish what is in hand, then say so
  }
  done([message])
}

async function work (task, correlationId, position, message) {
  const known = identity(task)
  if (hand.has(known)) return hand.get(known).places.push(message) // (4) delivered twice
  if (past.has(known) || task.deadline_at <= now()) return done([message]) // (4), (5)
  draining = drained = false
  const abort = new AbortController()
  const mine = { abort, places: [message] }
  hand.set(known, mine)
  let reports = 0
  // (7) The id follows from the position of the assignment, so a re-run makes the same.
  const report = (kind, part = {}) => send('tasks.reports', task.task_id, {
    event_id: `${position}.${reports++}`, occurred_at: now(), source: me,
    correlation_id: correlationId, causation_id: position,
    kind, task_id: task.task_id, agent_id: me, attempt: task.attempt, epoch: task.epoch, ...part
  })
  const slow = setTimeout(() => report('started').catch(fail), MOMENT_MS)
  let outcome
  await nextTurn() // (5) a cancel that came along with the assignment is read first
  try {
    abort.signal.throwIfAborted()
    const result = await handle(JSON.parse(task.payload), { task, signal: abort.signal })
    outcome = ['completed', { result: JSON.stringify(result) }]
  } catch (error) {
    const code = error.code === 'invalid_input' ? 'invalid_input' : 'agent_error'
    const retryable = code === 'agent_error'
    const message = String(error.message ?? error)
    const why = { code, message, retryable, agent_id: me, attempt: task.attempt }
    outcome = ['failed', { error: why }]
  }
  clearTimeout(slow)
  if (!abort.signal.aborted) await report(...outcome) // (6) acknowledged before the offset may be committed
  tell(abort.signal.aborted ? 'cancelled' : outcome[0], { task: task.task_id, epoch: task.epoch })
  remember(known)
  hand.delete(known)
  done(mine.places)
}

// (8) What cannot be read is kept for an operator, and the inbox goes on.
async function bury (message, position, error) {
  const id = `${position}.0`
  await send('tasks.deadletters', position, {
    event_id: id, occurred_at: now(), source: me, causation_id: position, deadletter_id: id, kind: 'poison',
    source_topic: message.topic, partition: message.partition, offset: Number(message.offset),
    original_key: message.key ?? null, original_value: message.value ?? Buffer.alloc(0), failed_step: 'decode',
    error: { code: 'invalid_request', message: error.message, agent_id: me },
    first_failed_at: Number(message.timestamp) * 1000, created_at: now()
  })
  done([message])
}

// (3) A sign of life says how much is in hand and how much of the inbox is unread.
const beat = () => (pulse = pulse.then(sendHeartbeat).catch(fail))

async function sendHeartbeat () {
  if (leaving && drained) return // the registry knows us no more
  const ends = (await consumer.listOffsets({ topics: [inbox] })).get(inbox)
  const read = ends.map((_, partition) => (
    offsets.get(partition)?.next ?? stream.offsetsToFetch.get(`${inbox}:${partition}`)
  ))
  const unread = read.includes(undefined)
    ? null
    : ends.reduce((sum, end, partition) => sum + Math.max(0, Number(end - read[partition])), 0)
  const load = hand.size
  await command('heartbeat', { load, inbox_lag: unread })
  drained = draining && load === 0 && unread === 0
}

// --- from start to end

function fail (error) {
  tell('failed', { error: String(error.stack ?? error) })
  process.exit(1) // nothing is committed that was not reported; whoever supervises starts us again
}

async function stop () {
  tell('stopping')
  leaving = true
  setTimeout(() => fail(new Error(`not drained within ${DRAIN_LIMIT_MS} ms`)), DRAIN_LIMIT_MS).unref()
  const unregister = process.env.ON_STOP === 'unregister'
  const part = { mode: 'drain', reason: 'the process ends' }
  if (unregister || !draining) await command(unregister ? 'unregister' : 'stop', part)
  while (!drained) await sleep(20)
  clearInterval(beating)
  await pulse
  await commit()
  await consumer.close(true)
  await producer.close()
  await wire.close()
  process.exit(0)
}

// (1) Say who we are, and (2) wait for the inbox: it is there before anything is routed to us.
await command('register', { definition, replace: true })
await command('start')
const admin = new Admin({ bootstrapBrokers, clientId: me })
for (const begun = Date.now(); !(await admin.listTopics()).includes(inbox); await sleep(100)) {
  if (Date.now() - begun > START_LIMIT_MS) fail(new Error(`no ${inbox}; \`troupe topics tail agents.events\` tells why`))
}
await admin.close()

// (2) One group per agent; a static member gets its inbox back at once when it was killed.
const consumer = new Consumer({
  bootstrapBrokers, clientId: me, groupId: `${prefix}agents.${me}`, groupInstanceId: `${me}-1`,
  sessionTimeout: 6000, heartbeatInterval: 1000, autocommit: false
})
stream = await consumer.consume({ topics: [inbox], mode: 'committed', fallbackMode: 'earliest', maxWaitTime: 500 })
stream.on('data', message => receive(message).catch(fail))
stream.on('error', fail)
await beat()
const beating = setInterval(beat, (definition.heartbeat_interval_seconds ?? 10) * 1000)
setInterval(() => commit().catch(fail), 500)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop().catch(fail))
tell('ready', { agent: me, inbox })
