import '../kit/properties.ts'
import { fuzz, newSeed } from './run.ts'
import { targets } from './targets.ts'

/**
 * The properties of the suite for as long as is wanted. Ends with 1 at the first failure, and tells
 * the seed by which it comes again.
 * Usage: [STRATOS_FUZZ_SECONDS=60] [STRATOS_FUZZ_SEED=<seed>] bun run fuzz
 */
const seconds = wholeNumber('STRATOS_FUZZ_SECONDS') ?? 60
const seed = wholeNumber('STRATOS_FUZZ_SEED') ?? newSeed()
const failure = fuzz({ targets, seed, milliseconds: seconds * 1000, tell })
if (failure !== undefined) {
  tell(failure)
  process.exitCode = 1
}

function wholeNumber(name: string): number | undefined {
  const text = process.env[name]
  if (text === undefined) return undefined
  if (/^\d{1,10}$/.test(text)) return Number(text)
  throw new Error(`${name} must be a whole number`)
}

function tell(text: string): void {
  process.stdout.write(`${text}\n`)
}
