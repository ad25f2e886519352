import type { NodeSavedSession, NodeSavedState } from '@atproto/oauth-client-node'
import { assert } from '../lib/assert.ts'

/** Holds one value, in memory, under whatever key. */
export class Slot<Value> {
  value: Value | undefined

  constructor(value?: Value) {
    this.value = value
  }

  async get(): Promise<Value | undefined> {
    return this.value
  }

  async set(_key: string, value: Value): Promise<void> {
    this.value = value
  }

  async del(): Promise<void> {
    this.value = undefined
  }
}

export function parseState(saved: string): NodeSavedState {
  const state = jsonOf(saved)
  assert(hasKeys(state, ['iss', 'dpopJwk', 'verifier']), 'a saved state is one that we saved')
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- ours, as far as it shows
  return state as NodeSavedState
}

export function parseSession(saved: string): NodeSavedSession {
  const session = jsonOf(saved)
  const isWhole =
    hasKeys(session, ['dpopJwk', 'authMethod', 'tokenSet']) &&
    hasKeys(Reflect.get(session, 'tokenSet'), ['iss', 'sub', 'aud'])
  assert(isWhole, 'a saved session is one that we saved')
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- ours, as far as it shows
  return session as NodeSavedSession
}

/** Undefined for what is no JSON: the error of the parser would quote it. */
function jsonOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return value
  } catch {
    return undefined
  }
}

function hasKeys(value: unknown, keys: readonly string[]): value is object {
  return typeof value === 'object' && value !== null && keys.every((key) => key in value)
}
