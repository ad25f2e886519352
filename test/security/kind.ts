import type { CredentialKind } from '../../src/api/caller.ts'
import type { Refusal } from '../kit/refusal.ts'
import type { Caller, Door, Outcome } from './doors.ts'
import type { Sent } from './sent.ts'
import type { World } from './world.ts'

export type Make = (world: World, door: Door) => Promise<Sent> | Sent

/** One way to be no good. */
export interface Break {
  readonly make: Make
  /** What it is answered: a refusal, or what somebody gets who shows no credential at all. */
  readonly outcome: Refusal | 'anonymous'
  /** Where it is one; everywhere, unless told otherwise. */
  readonly at?: (door: Door) => boolean
}

export type Breaks = Readonly<Record<string, Break>>

/** One form in which callers prove who they are. */
export interface Kind {
  readonly caller: Caller
  /** Of people: by what they call. Some methods do not take every kind. */
  readonly by?: CredentialKind
  /** Whom its calls are about. */
  readonly subject: string
  /** As it should be. */
  readonly make: Make
  /** Methods for which this is no credential, and what it then gets. */
  readonly elsewhere?: {
    readonly counts: (door: Door) => boolean
    readonly outcome: Refusal | 'anonymous'
  }
  /** Where it counts once. */
  readonly isOnce?: (door: Door) => boolean
  /** After the last use ended it: makes a new one. */
  readonly renew?: (world: World) => Promise<void>
  readonly breaks: Breaks
}

export type Kinds = Readonly<Record<string, Kind>>

export const invalid: Refusal = [401, 'InvalidToken']
export const expired: Refusal = [401, 'ExpiredToken']
export const forbidden: Refusal = [403, 'Forbidden']

/** What the kind gets where nothing is wrong with it. */
export function soundOutcome(kind: Kind, door: Door): Outcome {
  const { caller, by, elsewhere } = kind
  if (elsewhere !== undefined && !elsewhere.counts(door)) {
    return elsewhere.outcome === 'anonymous' ? door.answers.anonymous : elsewhere.outcome
  }
  return by === undefined || door.accepts.includes(by) ? door.answers[caller] : forbidden
}

/** What it gets that is broken; where the sound one is no credential, it is none there either. */
export function brokenOutcome(kind: Kind, door: Door, outcome: Break['outcome']): Outcome {
  const { elsewhere } = kind
  if (outcome === 'anonymous') return door.answers.anonymous
  if (elsewhere === undefined || elsewhere.counts(door)) return outcome
  return elsewhere.outcome === 'anonymous' ? door.answers.anonymous : elsewhere.outcome
}

/** Those of which each differs from the sound credential in how it is made. */
export function breaksOf(
  made: Readonly<Record<string, Make>>,
  outcome: Break['outcome'] = invalid,
  at?: Break['at'],
): Breaks {
  return Object.fromEntries(
    Object.entries(made).map(([name, make]) => {
      return [name, { make, outcome, ...(at === undefined ? {} : { at }) }]
    }),
  )
}

export function without(breaks: Breaks, ...names: readonly string[]): Breaks {
  return Object.fromEntries(Object.entries(breaks).filter(([name]) => !names.includes(name)))
}
