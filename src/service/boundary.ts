import { XrpcError } from '../atproto/errors.ts'

/** `{serviceDid}/{name}`, the form that every record and answer carries. */
export function qualifyBoundary(serviceDid: string, name: string): string {
  return `${serviceDid}/${name}`
}

/** The name alone, as operators write it and people read it. */
export function bareBoundary(boundary: string): string {
  return boundary.slice(boundary.lastIndexOf('/') + 1)
}

export interface BoundaryRules {
  readonly serviceDid: string
  /** Every boundary that the operator configured, qualified. */
  readonly allowed: readonly string[]
  /** The author's boundaries. */
  readonly own: readonly string[]
}

/**
 * The boundaries that a record names, once they passed every rule. No option turns a rule off.
 * @param boundary the record's `boundary` member, `{values: [{value}]}`
 * @throws XrpcError 400 MissingBoundary, InvalidRecord, ServiceMismatch, ForbiddenDomain,
 *   ForbiddenBoundary
 */
export function checkBoundaries(boundary: unknown, rules: BoundaryRules): string[] {
  const names = boundaryNames(boundary)
  for (const name of names) {
    if (!name.startsWith(`${rules.serviceDid}/`)) {
      throw refuse(
        'ServiceMismatch',
        `a boundary must start with the DID of this service, as in ${rules.serviceDid}/name`,
      )
    }
  }
  for (const name of names) {
    if (!rules.allowed.includes(name)) {
      throw refuse('ForbiddenDomain', `this service has no boundary ${JSON.stringify(name)}`)
    }
  }
  for (const name of names) {
    if (!rules.own.includes(name)) {
      throw refuse('ForbiddenBoundary', `you are not in the boundary ${JSON.stringify(name)}`)
    }
  }
  return names
}

/** The names in a boundary object, by its shape alone. */
export function boundaryNames(boundary: unknown): string[] {
  if (boundary === undefined) {
    throw refuse('MissingBoundary', 'a private record names its boundaries in the field "boundary"')
  }
  if (!isObject(boundary)) throw misshapen('Record/boundary must be an object')
  checkType(boundary, 'Record/boundary', 'zone.stratos.boundary.defs#Domains')
  const { values } = boundary
  if (values === undefined || (Array.isArray(values) && values.length === 0)) {
    throw refuse('MissingBoundary', 'a private record names at least one boundary')
  }
  if (!Array.isArray(values)) throw misshapen('Record/boundary/values must be an array')
  if (values.length > boundariesMax) {
    throw misshapen(`Record/boundary/values must not have more than ${boundariesMax} elements`)
  }
  const names = values.map(boundaryName)
  if (new Set(names).size !== names.length) {
    throw misshapen('Record/boundary/values must not name a boundary twice')
  }
  return names
}

const boundariesMax = 10
export const boundaryCharsMax = 253
/** Boundaries that one person is in. @see lexicon zone.stratos.actor.enrollment */
export const boundariesOfPersonMax = 50

function boundaryName(value: unknown, index: number): string {
  const path = `Record/boundary/values/${index}`
  if (!isObject(value)) throw misshapen(`${path} must be an object with a "value"`)
  checkType(value, path, 'zone.stratos.boundary.defs#Domain')
  const name = value['value']
  if (typeof name !== 'string') throw misshapen(`${path}/value must be a string`)
  if (name.length > boundaryCharsMax) {
    throw misshapen(`${path}/value must not be longer than ${boundaryCharsMax} characters`)
  }
  return name
}

function checkType(value: Record<string, unknown>, path: string, type: string): void {
  if (value['$type'] === undefined || value['$type'] === type) return
  throw misshapen(`${path}/$type must be ${type}`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function refuse(error: string, message: string): XrpcError {
  return new XrpcError(400, error, message)
}

function misshapen(message: string): XrpcError {
  return refuse('InvalidRecord', message)
}
