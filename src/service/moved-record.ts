import type { Cid } from '../atproto/cid.ts'
import { type DataObject, type DataValue, isDataObject } from '../atproto/data.ts'

/** From boundaries of another service to ours. */
export type BoundaryMap = ReadonlyMap<string, string>

/** The record with its boundaries as `map` has them; one that comes out twice is named once. */
export function withBoundaries(record: DataObject, map: BoundaryMap): DataObject {
  const { boundary } = record
  if (!isDataObject(boundary) || !Array.isArray(boundary['values'])) return record
  const values: DataValue[] = []
  const named = new Set<DataValue>()
  for (const value of boundary['values'].map((one) => mapped(one, map))) {
    const name = isDataObject(value) ? (value['value'] ?? null) : value
    if (!named.has(name)) values.push(value)
    named.add(name)
  }
  return { ...record, boundary: { ...boundary, values } }
}

function mapped(value: DataValue, map: BoundaryMap): DataValue {
  if (!isDataObject(value) || typeof value['value'] !== 'string') return value
  const to = map.get(value['value'])
  return to === undefined ? value : { ...value, value: to }
}

export interface StrongRef {
  readonly uri: string
  readonly cid: string
}

/** Strong references anywhere in a record. @see lexicon com.atproto.repo.strongRef */
export function strongRefs(value: DataValue): StrongRef[] {
  if (Array.isArray(value)) return value.flatMap(strongRefs)
  if (!isDataObject(value)) return []
  const inside = Object.values(value).flatMap(strongRefs)
  return isStrongRef(value) ? [{ uri: value.uri, cid: value.cid }, ...inside] : inside
}

/** The same value with the CIDs of strong references as `cidOf` has them, where it has one. */
export function withRefs(value: DataValue, cidOf: (ref: StrongRef) => Cid | undefined): DataValue {
  if (Array.isArray(value)) return value.map((one) => withRefs(one, cidOf))
  if (!isDataObject(value)) return value
  const copy: Record<string, DataValue> = {}
  for (const [name, member] of Object.entries(value)) copy[name] = withRefs(member, cidOf)
  const cid = isStrongRef(value) ? cidOf(value) : undefined
  return cid === undefined ? copy : { ...copy, cid }
}

function isStrongRef(value: DataObject): value is DataObject & StrongRef {
  return typeof value['uri'] === 'string' && typeof value['cid'] === 'string'
}
