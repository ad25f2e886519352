import type { Variable } from '../lib/settings.ts'
import { UsageError } from './failures.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** One setting of the service, for a command beside it. @throws UsageError */
export function setting<Value>(entry: Variable<Value>, env: Env): Value {
  const text = env[entry.name]
  if (text === undefined) return entry.fallback
  try {
    return entry.read(text.trim())
  } catch (error) {
    if (!(error instanceof Error)) throw error
    throw new UsageError(`${entry.name} ${error.message}`, { cause: error })
  }
}
