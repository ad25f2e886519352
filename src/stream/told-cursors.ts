import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeDurably } from '../lib/files.ts'

/**
 * How far any reader of this service was told to go on from by a time. Nothing may be logged up to
 * there any more, also by a later process and under a clock that was set back: whoever resumes would
 * pass it over.
 */
export class ToldCursors {
  readonly #path: string
  #most: number

  /** @throws Error where the file of an earlier process holds no number */
  constructor(dataDir: string) {
    this.#path = join(dataDir, 'told_cursors')
    this.#most = existsSync(this.#path) ? numberIn(this.#path) : 0
  }

  /** No reader was told more. */
  get most(): number {
    return this.#most
  }

  /** To be called before a reader is told `seq`: once a minute, for all of them, it is stored. */
  reach(seq: number): void {
    if (seq <= this.#most) return
    const most = seq + aheadMicros
    writeDurably(this.#path, String(most), 0o600)
    this.#most = most
  }
}

/** As old as what is told is: it is stored up to now, and so in nobody's way. */
const aheadMicros = 60_000_000

function numberIn(path: string): number {
  const text = readFileSync(path, 'utf8')
  const number = /^\d+$/.test(text) ? Number(text) : NaN
  if (Number.isSafeInteger(number)) return number
  throw new Error(`${path} must hold a number: restore it from a backup`)
}
