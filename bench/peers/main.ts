import type { Did } from '../../src/atproto/syntax.ts'
import { drive } from '../kit/generator.ts'
import { benchDid, seedPeople } from '../kit/people.ts'
import { printRatios, ratioOf } from '../kit/ratio.ts'
import {
  type Figures,
  figuresLine,
  figuresOf,
  listOption,
  numberOption,
  option,
  print,
} from '../kit/report.ts'
import { Service } from '../kit/service.ts'
import { type Exporter, verifyRepos } from '../kit/verify.ts'
import { creating, type WriteTarget } from '../kit/write-plans.ts'
import { addWritten, stratosExporter, stratosTarget } from '../kit/write-run.ts'
import { Pds } from './pds.ts'

/**
 * The same writes by the same generator to Stratos and to an official PDS, in turns. See README.md.
 * Usage: bun bench/peers/main.ts [--seconds 4] [--rounds 3] [--load one,actors,writers]
 *   [--actors 64] [--binary dist/stratos]
 */
/** Beyond it, one busy repo would be larger than what is exported for the verification. */
const secondsMax = 10
const seconds = numberOption('seconds', { fallback: 4, max: secondsMax })
const rounds = numberOption('rounds', { fallback: 3, max: 20 })
const actors = numberOption('actors', { fallback: 64, max: 256 })
const build = { binary: option('binary') }
const writersOfOne = 32

/** Who writes, and how many times what the PDS does we want to do at least. */
const loads = {
  one: { name: '1 client in sequence', target: 15 },
  actors: { name: `${actors} actors at once`, target: 12 },
  writers: { name: `1 actor, ${writersOfOne} writers`, target: 40 },
} as const
const wanted = listOption('load', ['one', 'actors', 'writers'])
type Load = (typeof wanted)[number]

interface Peer {
  readonly name: string
  readonly server: Service | Pds
  readonly target: WriteTarget
  readonly exporter: Exporter
  readonly dids: readonly Did[]
  readonly emptyBytes: number
  readonly written: Map<Did, number>
  readonly rates: Readonly<Record<Load, number[]>>
}

await using service = await Service.prepare()
await using pds = await Pds.start()
const peers = [await ourselves(), await official()]
print(`\n${seconds} s a load; first, what is done for the first time`)
for (const peer of peers) await measure(peer, 'actors', 0)
for (let round = 1; round <= rounds; round++) {
  print(`\nround ${round} of ${rounds}`)
  for (const load of wanted) {
    for (const peer of peers) {
      const { recordsPerSecond } = await measure(peer, load, round)
      peer.rates[load].push(recordsPerSecond)
    }
  }
}
print('')
for (const peer of peers) await verify(peer)
report()
print('every answer was as expected')

async function ourselves(): Promise<Peer> {
  const dids = Array.from({ length: actors }, (_, index) => benchDid(index))
  await seedPeople(service, dids, build)
  await service.start({ STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_SQLITE_SYNCHRONOUS: 'full' }, build)
  const [target, exporter] = [stratosTarget(service), stratosExporter(service)]
  return await peerOf('stratos', { server: service, target, exporter, dids })
}

async function official(): Promise<Peer> {
  print(`creating ${actors} accounts on the PDS`)
  const dids: Did[] = []
  for (let index = 0; index < actors; index++) dids.push(await pds.createAccount(`bench${index}`))
  return await peerOf('pds', { server: pds, target: pds.target, exporter: pds.exporter, dids })
}

async function peerOf(
  name: string,
  parts: Pick<Peer, 'server' | 'target' | 'exporter' | 'dids'>,
): Promise<Peer> {
  const emptyBytes = await parts.server.diskBytes()
  const rates = { one: [], actors: [], writers: [] }
  return { ...parts, name, emptyBytes, written: new Map(), rates }
}

async function measure(
  { name, server, target, dids, written }: Peer,
  load: Load,
  round: number,
): Promise<Figures> {
  const plan = creating(target, writersOf(load, dids, round))
  const driven = await drive(
    {
      port: server.port,
      requests: plan.requests,
      clients: plan.clients,
      warmUpSeconds: seconds / 5,
      seconds,
      perSecond: null,
    },
    server.pid,
  )
  addWritten(written, { effects: plan.effects, answered: driven.answered })
  const figures = figuresOf(`${name.padEnd(8)} ${loads[load].name}`, driven)
  print(figuresLine(figures, 'writes'))
  return figures
}

/** One actor's repo is another one's each round, so that none grows large and slow. */
function writersOf(load: Load, dids: readonly Did[], round: number): readonly Did[] {
  const place = round % dids.length
  switch (load) {
    case 'one':
      return dids.slice(place, place + 1)
    case 'actors':
      return dids
    case 'writers':
      return Array.from({ length: writersOfOne }, () =>
        dids.toReversed().slice(place, place + 1),
      ).flat()
    default:
      return load satisfies never
  }
}

async function verify({ name, server, exporter, written, emptyBytes }: Peer): Promise<void> {
  const records = [...written.values()].reduce((sum, count) => sum + count, 0)
  const residentMb = server.residentMb()
  const bytes = ((await server.diskBytes()) - emptyBytes) / records
  print(
    `${name}: resident ${residentMb.toFixed(0)} MB, ${bytes.toFixed(0)} bytes on disk per record; ` +
      (await verifyRepos(exporter, written)),
  )
}

function report(): void {
  const [ours, theirs] = peers
  if (ours === undefined || theirs === undefined) throw new Error('a peer is missing')
  const paired = wanted.map((load) => {
    const { name, target } = loads[load]
    const rates = { left: ours.rates[load], right: theirs.rates[load] }
    const verdict = ratioOf(rates).middle >= target ? 'reached' : 'not reached'
    const note = `at least ${target}x: ${verdict}`
    return { name, left: rates.left, right: rates.right, note }
  })
  printRatios(['stratos /s', 'PDS /s'], paired)
}
