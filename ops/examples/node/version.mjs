// Imported before anything else: on a Node that is too old the Kafka client breaks while it is loaded, and says nothing
// of the reason. The version that is needed is in package.json, where npm looks for it too.

import { readFileSync } from 'node:fs'

const { engines } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)))
const needed = engines.node.replace('>=', '')
const [major, minor] = needed.split('.').map(Number)
const [ourMajor, ourMinor] = process.versions.node.split('.').map(Number)
if (ourMajor < major || (ourMajor === major && ourMinor < minor)) {
  console.error(`Node ${needed} or newer is needed, this is ${process.versions.node}`)
  process.exit(1)
}
