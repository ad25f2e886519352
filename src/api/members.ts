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

export function texts(members: Members, name: string): string[] {
  const value = members[name]
  assert(Array.isArray(value), `${name} is an array by its lexicon`)
  return value.map((element: unknown) => {
    assert(typeof element === 'string', `${name} holds strings by its lexicon`)
    return element
  })
}
