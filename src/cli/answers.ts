import { CommandFailed } from './failures.ts'

/** A JSON object of the service. It may be of another version, so that nothing is taken for granted. */
export type Fields = Readonly<Record<string, unknown>>

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @throws CommandFailed, as do all readers here */
export function textIn(fields: Fields, name: string): string {
  const value = fields[name]
  if (typeof value === 'string') return value
  throw unexpected(name)
}

export function numberIn(fields: Fields, name: string): number {
  const value = fields[name]
  if (typeof value === 'number') return value
  throw unexpected(name)
}

export function flagIn(fields: Fields, name: string): boolean {
  const value = fields[name]
  if (typeof value === 'boolean') return value
  throw unexpected(name)
}

export function fieldsIn(fields: Fields, name: string): Fields {
  const value = fields[name]
  if (isFields(value)) return value
  throw unexpected(name)
}

export function listIn(fields: Fields, name: string): readonly Fields[] {
  const value = fields[name]
  if (Array.isArray(value) && value.every(isFields)) return value
  throw unexpected(name)
}

export function textsIn(fields: Fields, name: string): readonly string[] {
  const value = fields[name]
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value
  throw unexpected(name)
}

function unexpected(name: string): CommandFailed {
  return new CommandFailed(
    `the service answered without a proper "${name}": use the program of its own version`,
  )
}
