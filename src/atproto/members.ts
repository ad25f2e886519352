import { CidError, type Cid, parseCid } from './cid.ts'
import { invalidRequest } from './errors.ts'
import { assert } from '../lib/assert.ts'

// Readers of parameters and inputs that passed their lexicon: another type is a fault of ours.

type Members = Readonly<Record<string, unknown>>

export function text(members: Members, name: string): string | undefined {
  const value = members[name]
  assert(value === undefined || typeof value === 'string', `${name} is a string by its lexicon`)
  return value
}

export function number(members: Members, name: string): number | undefined {
  const value = members[name]
  assert(value === undefined || typeof value === 'number', `${name} is a number by its lexicon`)
  return value
}

export function flag(members: Members, name: string): boolean {
  const value = members[name]
  assert(value === undefined || typeof value === 'boolean', `${name} is a boolean by its lexicon`)
  return value ?? false
}

/** Undefined where it is not said. */
export function optionalFlag(members: Members, name: string): boolean | undefined {
  return members[name] === undefined ? undefined : flag(members, name)
}

export function objects(members: Members, name: string): Members[] {
  const value = members[name]
  assert(Array.isArray(value), `${name} is an array by its lexicon`)
  return value.map((element: unknown) => {
    assert(isMembers(element), `${name} holds objects by its lexicon`)
    return element
  })
}

export function fields(members: Members, name: string): Members | undefined {
  const value = members[name]
  assert(value === undefined || isMembers(value), `${name} is an object by its lexicon`)
  return value
}

export function texts(members: Members, name: string): string[] {
  const value = members[name]
  assert(Array.isArray(value), `${name} is an array by its lexicon`)
  return value.map((element: unknown) => {
    assert(typeof element === 'string', `${name} holds strings by its lexicon`)
    return element
  })
}

/** Undefined where it is not said. */
export function optionalTexts(members: Members, name: string): string[] | undefined {
  return members[name] === undefined ? undefined : texts(members, name)
}

/** @throws XrpcError 400 for a CID of another kind than records have */
export function cidOf(members: Members, name: string): Cid | undefined {
  const value = text(members, name)
  if (value === undefined) return undefined
  try {
    return parseCid(value)
  } catch (error) {
    if (error instanceof CidError) throw invalidRequest(`${name}: ${error.message}`)
    throw error
  }
}

function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
