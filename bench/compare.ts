import { baselineLoad, readBaseline, thisMachine, writeBaseline } from './kit/baseline.ts'
import { Checkout } from './kit/checkout.ts'
import { printRatios } from './kit/ratio.ts'
import { type Figures, listOption, numberOption, option, print } from './kit/report.ts'
import { measureWrites, writeLoads } from './kit/write-run.ts'

/**
 * Two commits of this repository under the loads of the write bench, in turns. See README.md.
 * Usage: bun bench/compare.ts <commit A> <commit B> [--load one,actors,writers,apply10]
 *   [--seconds 2] [--rounds 3] [--synchronous full] [--people 300] [--shards 2]
 *   [--accept] [--baseline bench/baseline.json]
 * With --accept the figures of B are kept.
 */
const secondsMax = 10
const [, , nameA = '', nameB = ''] = process.argv
if ([nameA, nameB].some((name) => name === '' || name.startsWith('-'))) {
  throw new Error('name two commits: bun bench/compare.ts <commit A> <commit B>')
}
const seconds = numberOption('seconds', { fallback: 2, max: secondsMax })
const rounds = numberOption('rounds', { fallback: 3, max: 20 })
const people = numberOption('people', { fallback: 300, max: 10_000 })
const shards = option('shards')
const baselinePath = option('baseline')
const [synchronous = 'full'] = listOption('synchronous', ['full', 'normal'])
const usual = ['one', 'actors', 'writers', 'apply10'] as const
const loads = option('load') === undefined ? usual : listOption('load', writeLoads)

await using a = await Checkout.of(nameA)
await using b = await Checkout.of(nameB)
/** A round each, of every load in order. */
const seen: { readonly a: Figures[][]; readonly b: Figures[][] } = { a: [], b: [] }
for (let round = 1; round <= rounds; round++) {
  print(`\nround ${round} of ${rounds}: A, ${nameA}`)
  seen.a.push(await measure(a))
  print(`\nround ${round} of ${rounds}: B, ${nameB}`)
  seen.b.push(await measure(b))
}
report('writes/s', ({ recordsPerSecond }) => recordsPerSecond)
report('CPU ms per write', ({ cpuPer1000 }) => cpuPer1000)
report('p99, ms', ({ p99 }) => p99)
await reportBaseline()
if (process.argv.includes('--accept')) await accept()
print('every answer was as expected')

async function measure({ root }: Checkout): Promise<Figures[]> {
  return await measureWrites({ build: { root }, synchronous, seconds, loads, shards, people })
}

function report(what: string, of: (one: Figures) => number): void {
  const rows = roundsOfLoads(seen.b).map((ofB, index) => ({
    name: ofB[0]?.name ?? '',
    left: ofB.map(of),
    right: (roundsOfLoads(seen.a)[index] ?? []).map(of),
  }))
  printRatios([`B ${what}`, 'A'], rows)
}

/** From rounds of loads to loads of rounds. */
function roundsOfLoads(all: readonly (readonly Figures[])[]): Figures[][] {
  const names = all[0]?.map(({ name }) => name) ?? []
  return names.map((name) => all.flatMap((round) => round.filter((one) => one.name === name)))
}

async function reportBaseline(): Promise<void> {
  const baseline = await readBaseline(baselinePath)
  if (baseline === undefined) return
  const { date, machine, loads: before } = baseline
  if (!Bun.deepEquals([machine, baseline.synchronous], [thisMachine(), synchronous])) {
    print(`\nthe accepted figures of ${date} are of another machine or setting: not compared`)
    return
  }
  print(`\nB and the accepted figures of ${date}, writes/s`)
  for (const { name, writesPerSecond } of roundsOfLoads(seen.b).map(baselineLoad)) {
    const accepted = before.find((load) => load.name === name)?.writesPerSecond
    if (accepted === undefined) continue
    const ratio = (writesPerSecond / accepted).toFixed(2)
    print(`${name.padEnd(40)}${writesPerSecond} to ${accepted}: ${ratio}x`)
  }
}

async function accept(): Promise<void> {
  const date = new Date().toISOString().slice(0, 10)
  const accepted = roundsOfLoads(seen.b).map(baselineLoad)
  await writeBaseline(
    {
      date,
      commit: b.commit,
      machine: thisMachine(),
      synchronous,
      seconds,
      rounds,
      loads: accepted,
    },
    baselinePath,
  )
  print(`\naccepted the figures of ${nameB}`)
}
