import {
  ensureValidDid,
  ensureValidHandle,
  ensureValidNsid,
  ensureValidRecordKey,
  ensureValidTid,
  isValidDid,
  isValidHandle,
  isValidNsid,
  isValidRecordKey,
  isValidTid,
} from '@atproto/syntax'
import { invalidRequest } from './errors.ts'

/** A `T` that only the parser of `Name` makes, so that two kinds of text cannot be mixed up. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name }
declare const brand: unique symbol

export type Did = Brand<string, 'Did'>
/** Always in lower case: handles are compared without regard to case. */
export type Handle = Brand<string, 'Handle'>
export type Nsid = Brand<string, 'Nsid'>
export type Tid = Brand<string, 'Tid'>
export type Rkey = Brand<string, 'Rkey'>
/** The form `at://{did}/{collection}/{rkey}`, and no other. */
export type AtUri = Brand<string, 'AtUri'>

export interface RecordPlace {
  readonly did: Did
  readonly collection: Nsid
  readonly rkey: Rkey
}

/** @throws XrpcError 400 InvalidRequest, as do all parsers here */
export function parseDid(text: string): Did {
  if (isDid(text)) return text
  throw refusal('DID', text, ensureValidDid)
}

export function parseHandle(text: string): Handle {
  const handle = text.toLowerCase()
  if (isHandle(handle)) return handle
  throw refusal('handle', text, ensureValidHandle)
}

export function parseNsid(text: string): Nsid {
  if (isNsid(text)) return text
  throw refusal('NSID', text, ensureValidNsid)
}

export function parseTid(text: string): Tid {
  if (isTid(text)) return text
  throw refusal('TID', text, ensureValidTid)
}

export function parseRkey(text: string): Rkey {
  if (isRkey(text)) return text
  throw refusal('record key', text, ensureValidRecordKey)
}

/**
 * The parts of a record's URI. A handle as authority, a missing part, a trailing slash, a query and
 * a fragment are all refused: two texts never name one record.
 */
export function parseRecordUri(text: string): RecordPlace {
  const parts = text.split('/')
  const [scheme, empty, did, collection, rkey] = parts
  if (parts.length !== 5 || scheme !== 'at:' || empty !== '' || text.length > uriCharsMax) {
    throw invalidRequest(`${shown(text)} is no record URI, as in at://did:plc:abc/com.example.a/b`)
  }
  return {
    did: parseDid(did ?? ''),
    collection: parseNsid(collection ?? ''),
    rkey: parseRkey(rkey ?? ''),
  }
}

/** The parts of what `parseRecordUri` takes; undefined for any other text. */
export function recordPlace(text: string): RecordPlace | undefined {
  const parts = text.split('/')
  const [scheme, empty, did = '', collection = '', rkey = ''] = parts
  if (parts.length !== 5 || scheme !== 'at:' || empty !== '' || text.length > uriCharsMax) {
    return undefined
  }
  return isDid(did) && isNsid(collection) && isRkey(rkey) ? { did, collection, rkey } : undefined
}

export function recordUri(did: Did, collection: Nsid, rkey: Rkey): AtUri {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- made of three checked parts
  return `at://${did}/${collection}/${rkey}` as AtUri
}

export function isDid(text: string): text is Did {
  return isValidDid(text)
}

/** Holds for lower case only: `parseHandle` brings other text there. */
export function isHandle(text: string): text is Handle {
  return isValidHandle(text) && text === text.toLowerCase()
}

export function isNsid(text: string): text is Nsid {
  return isValidNsid(text)
}

export function isTid(text: string): text is Tid {
  return isValidTid(text)
}

function isRkey(text: string): text is Rkey {
  return isValidRecordKey(text)
}

/** The longest DID, NSID and record key (2048, 317 and 512 characters) fit. */
const uriCharsMax = 3000
const shownCharsMax = 100

/** The reason comes from the slow twin of the check, which runs for bad text only. */
function refusal(what: string, text: string, explain: (text: string) => void): Error {
  try {
    explain(text)
  } catch (reason) {
    if (reason instanceof Error) {
      return invalidRequest(`${shown(text)} is no valid ${what}: ${reason.message}`)
    }
  }
  return invalidRequest(`${shown(text)} is no valid ${what}`)
}

function shown(text: string): string {
  return JSON.stringify(text.length > shownCharsMax ? `${text.slice(0, shownCharsMax)}...` : text)
}
