import type { Driven } from './generator.ts'

/** What follows `--{name}` on the command line. */
export function option(name: string): string | undefined {
  const index = process.argv.indexOf(`--${name}`)
  return index < 0 ? undefined : process.argv[index + 1]
}

/** A number on the command line, at most `max`: every bench ends in a time that can be foreseen. */
export function numberOption(
  name: string,
  { fallback, max }: { readonly fallback: number; readonly max: number },
): number {
  const text = option(name)
  const value = text === undefined ? fallback : Number(text)
  if (value > 0 && value <= max) return value
  throw new Error(`--${name} must be a number above 0 and at most ${max}`)
}

/** Names on the command line, separated by commas; by default all. */
export function listOption<Name extends string>(name: string, all: readonly Name[]): Name[] {
  const wanted = option(name)?.split(',')
  const unknown = wanted?.find((one) => !all.some((known) => known === one))
  if (unknown !== undefined) throw new Error(`--${name} ${unknown}: choose of ${all.join(', ')}`)
  return all.filter((one) => wanted?.includes(one) ?? true)
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** One measured load. */
export interface Figures {
  readonly name: string
  readonly requestsPerSecond: number
  /** Records created, changed or deleted. */
  readonly recordsPerSecond: number
  readonly p50: number
  readonly p95: number
  readonly p99: number
  /** CPU seconds of the server per 1000 records. */
  readonly cpuPer1000: number
  /** Of a core, by the load generator. */
  readonly generatorShare: number
  readonly ranOut: boolean
}

export function figuresOf(name: string, driven: Driven, recordsPerRequest = 1): Figures {
  const { times, seconds } = driven
  const sorted = times.toSorted((a, b) => a - b)
  const records = times.length * recordsPerRequest
  return {
    name,
    requestsPerSecond: times.length / seconds,
    recordsPerSecond: records / seconds,
    p50: percentile(sorted, 0.5),
    p95: percentile(sorted, 0.95),
    p99: percentile(sorted, 0.99),
    cpuPer1000: (driven.cpuSeconds / records) * 1000,
    generatorShare: driven.share,
    ranOut: driven.ranOut,
  }
}

export function figuresLine(figures: Figures, unit: string): string {
  const { name, requestsPerSecond, recordsPerSecond, p50, p95, p99 } = figures
  const requests =
    requestsPerSecond === recordsPerSecond ? '' : ` in ${requestsPerSecond.toFixed(0)} requests`
  return (
    `${name.padEnd(34)} ${recordsPerSecond.toFixed(0).padStart(6)} ${unit}/s${requests}   ` +
    `p50 ${p50.toFixed(2)} p95 ${p95.toFixed(2)} p99 ${p99.toFixed(2)} ms   ` +
    `server ${figures.cpuPer1000.toFixed(3)} CPU s per 1000, ` +
    `load generator at ${(figures.generatorShare * 100).toFixed(0)} % of a core` +
    (figures.ranOut ? ' (ended early: nothing was left to ask)' : '')
  )
}

/** `p50 1.00 p95 2.00 p99 3.00 ms` of times in milliseconds, in any order. */
export function percentiles(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number) => percentile(sorted, share).toFixed(2)
  return `p50 ${at(0.5)} p95 ${at(0.95)} p99 ${at(0.99)} ms`
}

/** Share of one core that this process used since `before`, in percent. */
export function ownShare(before: NodeJS.CpuUsage, tookMs: number, name = 'load generator'): string {
  const spent = process.cpuUsage(before)
  return `${name} at ${((spent.user + spent.system) / 10 / tookMs).toFixed(0)} % of a core`
}

/** @param sorted the smallest one first */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN
}
