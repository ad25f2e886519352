import type { Env } from './setting.ts'

/** What surrounds a command: it reads and writes nothing else. */
export interface Surroundings {
  readonly env: Env
  /** Of this program. */
  readonly version: string
  /** What was asked for. */
  print(text: string): void
  /** Progress, and what went wrong. */
  tell(text: string): void
  /** Asks whoever sits at the terminal; absent where nobody does. */
  readonly ask?: (question: string) => Promise<string>
}
