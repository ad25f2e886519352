import { readFileSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** Of Linux, as `getconf CLK_TCK` says. */
const ticksPerSecond = 100
const settleMs = 100
const settleMsMax = 5_000
/** On a busy machine one look may meet a server that only waits for its turn. */
const calmLooks = 2
/** A server that nobody asks still has its clocks and its garbage collector. */
const idleShare = 0.1
/** What `stat` counts in, whatever the file system's own blocks are. */
const blockBytes = 512

/** User and system time of a process so far. */
export function cpuSeconds(pid: number): number {
  // Its name, in parentheses, may have spaces in it.
  const fields = proc(pid, 'stat').split(') ').at(-1)?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/**
 * Waits until a process has come to rest, or for some seconds: its answers may be out before its
 * work is done.
 * @returns CPU seconds that it used meanwhile
 */
export async function settle(pid: number, waitMsMax = settleMsMax): Promise<number> {
  const before = cpuSeconds(pid)
  let last = before
  let calm = 0
  for (let waitedMs = 0; waitedMs < waitMsMax && calm < calmLooks; waitedMs += settleMs) {
    await Bun.sleep(settleMs)
    const now = cpuSeconds(pid)
    calm = now - last <= idleShare * (settleMs / 1000) ? calm + 1 : 0
    last = now
  }
  return last - before
}

export function residentMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(proc(pid, 'status'))?.[1]) / 1024
}

/** What a folder takes from the disk, folders and half-empty blocks included. */
export async function diskBytes(folder: string): Promise<number> {
  let blocks = 0
  for (const name of ['.', ...(await readdir(folder, { recursive: true }))]) {
    blocks += (await stat(join(folder, name)).catch(gone))?.blocks ?? 0
  }
  return blocks * blockBytes
}

/** The running server may have removed what was listed. */
function gone(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
  throw error
}

function proc(pid: number, file: string): string {
  return readFileSync(`/proc/${pid}/${file}`, 'utf8')
}
