// Records to bytes and back: Avro in Confluent framing (a zero, four bytes of schema id, the body).
// The schemas come from the topic `_schemas`, which is followed for as long as the agent runs, so a record that was
// written with a schema newer than the agent is understood a moment later.

import { randomUUID } from 'node:crypto'
import { Consumer } from '@platformatic/kafka'
import avro from 'avsc'

const WAIT_MS = 10_000

export class Wire {
  #types = new Map() // schema id -> avsc type
  #newest = new Map() // subject -> { id, version }
  #arrived = new Set() // those who wait for the next schema

  // Returns when the schemas of all these subjects are there.
  static async open (bootstrapBrokers, subjects) {
    const wire = new Wire()
    wire.consumer = new Consumer({ bootstrapBrokers, clientId: 'schemas', groupId: `schemas.${randomUUID()}` })
    const stream = await wire.consumer.consume({
      topics: ['_schemas'], mode: 'earliest', autocommit: false, maxWaitTime: 500
    })
    stream.on('data', message => wire.#learn(message))
    const missing = () => subjects.filter(subject => !wire.#newest.has(subject))
    await wire.#until(() => missing().length === 0, () => `no schema of ${missing()}; run \`troupe topology apply\``)
    return wire
  }

  encode (subject, record) {
    const { id } = this.#newest.get(subject)
    const frame = Buffer.alloc(5)
    frame.writeUInt32BE(id, 1)
    return Buffer.concat([frame, this.#types.get(id).toBuffer(record)])
  }

  // Throws if the bytes are no record of a known schema.
  async decode (value) {
    if (!value || value.length < 5 || value[0] !== 0) throw new Error('no schema frame')
    const id = value.readUInt32BE(1)
    await this.#until(() => this.#types.has(id), () => `schema id ${id} is not registered`)
    return this.#types.get(id).fromBuffer(value.subarray(5))
  }

  async close () {
    await this.consumer.close(true)
  }

  #learn ({ key, value }) {
    const { keytype } = JSON.parse(key)
    if (keytype !== 'SCHEMA' || !value?.length) return
    const { subject, version, id, schema } = JSON.parse(value)
    if (!this.#types.has(id)) this.#types.set(id, avro.Type.forSchema(JSON.parse(schema)))
    if (version >= (this.#newest.get(subject)?.version ?? 0)) this.#newest.set(subject, { id, version })
    for (const look of this.#arrived) look()
  }

  #until (found, complaint) {
    if (found()) return
    return new Promise((resolve, reject) => {
      const end = error => {
        clearTimeout(timer)
        this.#arrived.delete(look)
        error ? reject(error) : resolve()
      }
      const look = () => found() && end()
      const timer = setTimeout(() => end(new Error(complaint())), WAIT_MS)
      this.#arrived.add(look)
    })
  }
}
