import fc from 'fast-check'
import { heldBytes } from '../kit/held.ts'
import { outcomeOf, type Target } from './targets.ts'

export interface Run {
  readonly targets: readonly Target[]
  /** Of the first batches; later ones are random. */
  readonly seed: number
  readonly milliseconds: number
  readonly tell: (text: string) => void
}

/**
 * Batch after batch of all targets, until the time is over.
 * @returns the first failure, with the seed by which it comes again; undefined when there was none
 */
export function fuzz({ targets, seed, milliseconds, tell }: Run): string | undefined {
  const endAt = Date.now() + milliseconds
  const counts = { read: 0, refused: 0 }
  let tellAt = Date.now() + progressMs
  let heldAtFirst: number | undefined
  for (let next = seed; ; next = newSeed()) {
    for (const target of targets) {
      const failure = failureOf(target, next, (outcome) => void (counts[outcome] += 1))
      if (failure !== undefined) return failure
    }
    const held = heldBytes()
    heldAtFirst ??= held
    if (held - heldAtFirst > growthBytesMax) {
      return `the heap has grown by ${held - heldAtFirst} bytes, last with the seed ${next}`
    }
    const said = `${counts.read} read, ${counts.refused} refused by name`
    if (Date.now() >= endAt) {
      tell(`${said}, and nothing else`)
      return undefined
    }
    if (Date.now() < tellAt) continue
    tellAt = Date.now() + progressMs
    tell(`${said} so far ...`)
  }
}

export function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0
}

const runsABatch = 500
const progressMs = 5_000
const growthBytesMax = 32 * 1024 * 1024

function failureOf(
  target: Target,
  seed: number,
  count: (outcome: 'read' | 'refused') => void,
): string | undefined {
  const property = fc.property(target.bytes, (bytes) => count(outcomeOf(target, bytes)))
  const { failed, counterexample, errorInstance } = fc.check(property, {
    seed,
    numRuns: runsABatch,
  })
  if (!failed) return undefined
  const hex = Buffer.from(counterexample?.[0] ?? []).toString('hex')
  const why = errorInstance instanceof Error ? errorInstance.stack : String(errorInstance)
  return `${target.name}, seed ${seed}: ${hex}\n${why}`
}
