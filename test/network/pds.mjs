// The official PDS. Usage:
//   node pds.mjs --plc <url> [--port <port>] [--resume <folder>] [--web <name>]
//
// The name given with --web is found on loopback; its certificate, with NODE_EXTRA_CA_CERTS.
//
// Its data lie in a temporary folder, which it announces and removes when it ends. What a
// `kill -9` leaves behind, another run can resume: accounts, keys and secrets are the same then.
//
// A line `mute` on standard input makes it do what repo writes ask for without ever answering, as
// when a connection breaks at the worst moment; `speak` ends that. Each is echoed once it holds.
import { randomBytes } from 'node:crypto'
import dns from 'node:dns'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

import { announceAndWait, listenOnLoopbackOnly, portOr } from './process.mjs'

listenOnLoopbackOnly()
const { PDS } = await import('@atproto/pds')

const option = { type: 'string' }
const options = { plc: option, port: option, resume: option, web: option }
const { values } = parseArgs({ options })
if (values.web !== undefined) findOnLoopback(values.web)
const data = values.resume ?? (await begin())
const port = await portOr(values.port)

const pds = await PDS.fromEnv({
  // Plain http and loopback addresses are what this network consists of.
  devMode: true,
  disableSsrfProtection: true,
  // The PDS gives itself an http:// address for this name only.
  hostname: 'localhost',
  port,
  dataDirectory: data,
  blobstoreDiskLocation: join(data, 'blobs'),
  didPlcUrl: values.plc,
  serviceHandleDomains: ['.test'],
  inviteRequired: false,
  bskyAppViewUrl: 'https://appview.invalid',
  bskyAppViewDid: 'did:web:appview.invalid',
  ...JSON.parse(await readFile(secretsPath(data), 'utf8')),
})
await pds.start()
obey(pds.server)

await announceAndWait({ url: `http://localhost:${port}`, port, data })
await pds.destroy()
await rm(data, { recursive: true, force: true })
process.exit()

function findOnLoopback(name) {
  const { lookup } = dns
  dns.lookup = (host, options, done) => {
    if (host !== name) return lookup(host, options, done)
    if (options.all) return done(null, [{ address: '127.0.0.1', family: 4 }])
    return done(null, '127.0.0.1', 4)
  }
}

function obey(server) {
  let isMute = false
  server.prependListener('request', (request, response) => {
    if (!isMute || request.method !== 'POST') return
    if (!request.url.startsWith('/xrpc/com.atproto.repo.')) return
    response.write = () => true
    response.end = () => response
  })
  createInterface({ input: process.stdin }).on('line', (line) => {
    isMute = line === 'mute'
    process.stdout.write(`${line}\n`)
  })
}

async function begin() {
  const folder = await mkdtemp(join(tmpdir(), 'stratos-pds-'))
  const secret = () => randomBytes(32).toString('hex')
  const secrets = {
    adminPassword: secret(),
    dpopSecret: secret(),
    jwtSecret: secret(),
    plcRotationKeyK256PrivateKeyHex: secret(),
  }
  await writeFile(secretsPath(folder), JSON.stringify(secrets), { mode: 0o600 })
  return folder
}

/** Also what tells a folder to resume from any other: without this file the start fails. */
function secretsPath(folder) {
  return join(folder, 'secrets.json')
}
