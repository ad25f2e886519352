/** What follows `--{name}` on the command line. */
export function option(name: string): string | undefined {
  const index = process.argv.indexOf(`--${name}`)
  return index < 0 ? undefined : process.argv[index + 1]
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** `p50 1.00 p95 2.00 p99 3.00 ms` of times in milliseconds, in any order. */
export function percentiles(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number) =>
    (sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN).toFixed(2)
  return `p50 ${at(0.5)} p95 ${at(0.95)} p99 ${at(0.99)} ms`
}

/** Share of one core that this process used since `before`, in percent: the load generator's. */
export function ownShare(before: NodeJS.CpuUsage, tookMs: number): string {
  const spent = process.cpuUsage(before)
  return `load generator at ${((spent.user + spent.system) / 10 / tookMs).toFixed(0)} % of a core`
}
