import { type Did, isDid } from '../atproto/syntax.ts'
import { pause } from '../lib/pause.ts'

/**
 * Everybody on a list: a DID on each line, beside blank lines and those that begin with `#`. It is
 * read in steps, between which the process does other work.
 * @throws NoList for a text without any line of substance, and for one with any line that is no DID
 * @throws the reason of an aborted `signal`
 */
export async function readList(bytes: Uint8Array, signal: AbortSignal): Promise<Set<Did>> {
  const text = new TextDecoder().decode(bytes)
  const dids = new Set<Did>()
  let written = false
  let number = 0
  for (let start = 0; start < text.length;) {
    const found = text.indexOf('\n', start)
    const end = found < 0 ? text.length : found
    const line = text.slice(start, end).trim()
    start = end + 1
    number += 1
    if (number % stepLines === 0) await pause(signal)
    if (line === '') continue
    written = true
    if (line.startsWith('#')) continue
    // Its text may be anything, so that only its place is told.
    if (!isDid(line)) throw new NoList(`line ${number} is no DID`)
    dids.add(line)
    if (dids.size > didsMax) throw new NoList(`more than ${didsMax} DIDs`)
  }
  // A server in trouble answers nothing more often than an operator means nobody.
  if (!written) throw new NoList('it is empty; a line that begins with # makes it a list of nobody')
  return dids
}

/** What came in the place of a list; the message says what is wrong, without repeating any of it. */
export class NoList extends Error {
  override readonly name = 'NoList'
}

/** Some milliseconds. */
const stepLines = 2_000
/** As many as fit into the largest text; some 100 MB while they are read. */
const didsMax = 1_000_000
