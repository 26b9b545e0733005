// A handler that does as its payload says, and writes down each start, so that a test sees what was run how often.

import { appendFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export const definition = {
  agent_id: 'node_agent',
  agent_type: 'test',
  capabilities: ['node_work'],
  max_in_flight: 4,
  heartbeat_interval_seconds: 1
}

export async function handle ({ ms = 0, raise, answer = {} }, { task, signal }) {
  appendFileSync(process.env.STARTS, `${task.task_id} ${task.attempt} ${task.epoch}\n`)
  await sleep(ms, undefined, { signal })
  if (raise) throw new Error(raise)
  return answer
}
