// The official PLC directory with everything in memory. Usage: node plc.mjs [--port <port>]
import { parseArgs } from 'node:util'

import { announceAndWait, listenOnLoopbackOnly, portOr } from './process.mjs'

listenOnLoopbackOnly()
const { Database, PlcServer } = await import('@did-plc/server')

const { values } = parseArgs({ options: { port: { type: 'string' } } })
const port = await portOr(values.port)
const server = PlcServer.create({ db: Database.mock(), port })
await server.start()

await announceAndWait({ url: `http://127.0.0.1:${port}` })
await server.destroy()
process.exit()
