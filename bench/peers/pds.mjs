// The official PDS to be measured. Usage: node pds.mjs --plc <url> --port <port> --data <folder>
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { announceAndWait, listenOnLoopbackOnly } from '../../test/network/process.mjs'

listenOnLoopbackOnly()
const { PDS } = await import('@atproto/pds')

const option = { type: 'string' }
const options = { plc: option, port: option, data: option }
const { plc, port, data } = parseArgs({ options }).values
const secret = () => randomBytes(32).toString('hex')

const pds = await PDS.fromEnv({
  // Plain http and loopback addresses are what this network consists of.
  devMode: true,
  disableSsrfProtection: true,
  // The PDS gives itself an http:// address for this name only.
  hostname: 'localhost',
  port: Number(port),
  dataDirectory: data,
  blobstoreDiskLocation: join(data, 'blobs'),
  didPlcUrl: plc,
  serviceHandleDomains: ['.test'],
  inviteRequired: false,
  rateLimitsEnabled: false,
  bskyAppViewUrl: 'https://appview.invalid',
  bskyAppViewDid: 'did:web:appview.invalid',
  adminPassword: secret(),
  dpopSecret: secret(),
  jwtSecret: secret(),
  plcRotationKeyK256PrivateKeyHex: secret(),
})
await pds.start()
await announceAndWait({ port: Number(port) })
await pds.destroy()
process.exit()
