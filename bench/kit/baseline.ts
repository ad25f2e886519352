import { cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { median } from './ratio.ts'
import type { Figures } from './report.ts'

/** Figures that were accepted once, for those who come later: medians over rounds. */
export interface Baseline {
  readonly date: string
  readonly commit: string
  readonly machine: Machine
  readonly synchronous: string
  readonly seconds: number
  readonly rounds: number
  readonly loads: readonly BaselineLoad[]
}

/** What figures depend on, and nothing that tells whose machine it is. */
export interface Machine {
  readonly cores: number
  readonly cpu: string
  readonly memoryGb: number
  readonly bun: string
}

export interface BaselineLoad {
  readonly name: string
  readonly writesPerSecond: number
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly cpuPer1000: number
}

const ownPath = fileURLToPath(new URL('../baseline.json', import.meta.url))

export async function readBaseline(path = ownPath): Promise<Baseline | undefined> {
  const file = Bun.file(path)
  return (await file.exists()) ? await file.json() : undefined
}

export async function writeBaseline(baseline: Baseline, path = ownPath): Promise<void> {
  await Bun.write(path, `${JSON.stringify(baseline, undefined, 2)}\n`)
}

export function thisMachine(): Machine {
  const all = cpus()
  return {
    cores: all.length,
    cpu: all[0]?.model ?? 'unknown',
    memoryGb: Math.round(totalmem() / 2 ** 30),
    bun: Bun.version,
  }
}

/** @param rounds the same load, once a round */
export function baselineLoad(rounds: readonly Figures[]): BaselineLoad {
  const middle = (of: (one: Figures) => number) => Number(median(rounds.map(of)).toPrecision(4))
  return {
    name: rounds[0]?.name ?? '',
    writesPerSecond: middle((one) => one.recordsPerSecond),
    p50: middle((one) => one.p50),
    p95: middle((one) => one.p95),
    p99: middle((one) => one.p99),
    cpuPer1000: middle((one) => one.cpuPer1000),
  }
}
