/**
 * The product on one machine: a PLC directory, a real PDS and Stratos on loopback, three people
 * and a private post. Every line marked ok was checked just now. Usage: bun run demo [--once]
 */
import { parseArgs } from 'node:util'

import { Network } from '../kit/network.ts'
import { Stratos } from '../kit/stratos.ts'
import { Report } from './report.ts'
import { boundaries, enter, type Stage, tell } from './story.ts'

const { values: flags } = parseArgs({ options: { once: { type: 'boolean', default: false } } })

const interrupted = Promise.withResolvers<void>()
let isStaying = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // In the middle of the story there is nothing to finish.
    if (!isStaying) process.exit(130)
    interrupted.resolve()
  })
}

process.exitCode = await run()

async function run(): Promise<number> {
  const report = new Report()
  report.heading('Stratos, with a real PDS, on this machine only')
  await using network = await report.step('a PLC directory and a PDS start', () => Network.start())
  await using stratos = await report.step('Stratos starts, with its index and AppView', () =>
    Stratos.start({
      network,
      domains: boundaries,
      command: [process.execPath, 'src/main.ts', 'all'],
    }),
  )
  const [alice, bob, carol] = await report.step('alice, bob and carol get accounts', () =>
    Promise.all([
      network.createAccount('alice'),
      network.createAccount('bob'),
      network.createAccount('carol'),
    ]),
  )
  const stage: Stage = { report, network, stratos, alice, bob, carol }
  try {
    await enter(stage)
    const uri = await tell(stage)
    report.total()
    if (!flags.once) await stay(stage, uri)
  } catch (error) {
    report.statement('the story came to its end', false, String(error))
    report.say('What Stratos logged last:')
    report.show(stratos.log.slice(-logCharsShown))
    report.total()
  }
  return report.failed === 0 ? 0 : 1
}

const logCharsShown = 4_000

/** Leaves everything running for a person to try, until Ctrl-C. */
async function stay({ report, network, stratos, alice }: Stage, uri: string): Promise<void> {
  const dave = await network.createAccount('dave')
  report.heading('It is all still running. Try it:')
  report.say('Enroll in a browser, as somebody new, and approve at the PDS:')
  report.show(`${stratos.url}/\nhandle ${dave.handle}   password ${dave.password}`)
  report.say('Read the post as alice; this token is good for an hour and for this method only:')
  const method = 'zone.stratos.repo.listRecords'
  const claims = { aud: stratos.did, lxm: method, exp: Math.floor(Date.now() / 1000) + 3600 }
  const token = await network.serviceAuth(alice, claims)
  const query = new URLSearchParams({ repo: alice.did, collection: collectionOf(uri) })
  report.show(curl(`${stratos.url}/xrpc/${method}?${query.toString()}`, token))
  report.say('Her PDS gave that token to her own session there:')
  const asked = new URLSearchParams({ ...claims, exp: String(claims.exp) })
  const source = `${network.pdsUrl}/xrpc/com.atproto.server.getServiceAuth?${asked.toString()}`
  report.show(curl(source, alice.accessJwt))
  report.say('Look after people, as the operator:')
  const password = `STRATOS_ADMIN_PASSWORD=${stratos.adminPassword}`
  report.show(`${password} \\\n  bun src/main.ts admin members --url ${stratos.url}`)
  report.say('Ctrl-C ends everything and removes its data.')
  isStaying = true
  await interrupted.promise
  report.say('Ending.')
}

function collectionOf(uri: string): string {
  return uri.split('/')[3] ?? ''
}

function curl(url: string, token: string): string {
  return `curl -s '${url}' \\\n  -H 'Authorization: Bearer ${token}'`
}
