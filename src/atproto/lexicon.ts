import {
  type LexObject,
  type LexXrpcParameters,
  type LexUserType,
  type LexiconDoc,
  Lexicons,
  ValidationError,
  jsonToLex,
} from '@atproto/lexicon'
import { assert, unreachable } from '../lib/assert.ts'
import { DataError, type DataObject, checkDataObject } from './data.ts'
import { XrpcError, invalidRequest } from './errors.ts'
import { closedCheck, memberCheck } from './lexicon-fast.ts'
import { type Definition, checkStrictly } from './lexicon-strict.ts'

/** What an NSID names: `record`, `query`, `procedure`, `subscription` and so on. */
export type LexiconKind = LexUserType['type']

/**
 * Checks what comes in and goes out against lexicons. Pure but for the documents, which it owns:
 * make one per thread.
 */
export class Schemas {
  readonly #lexicons: Lexicons
  /** The main definitions by NSID. The package's own map also answers to other spellings. */
  readonly #mains: ReadonlyMap<string, LexUserType>

  /** By definition; the documents bound their number. */
  readonly #checks = new Map<object, (members: Record<string, unknown>) => boolean>()

  constructor(docs: readonly LexiconDoc[]) {
    // The package writes into the documents that it is given.
    const own = structuredClone([...docs])
    this.#lexicons = new Lexicons(own)
    this.#mains = new Map(
      own.flatMap(({ id, defs: { main } }) => (main === undefined ? [] : [[id, main] as const])),
    )
  }

  has(nsid: string): boolean {
    return this.#mains.has(nsid)
  }

  /** The NSIDs of all records. */
  records(): string[] {
    return [...this.#mains].flatMap(([nsid, { type }]) => (type === 'record' ? [nsid] : []))
  }

  /** Undefined where there is no such lexicon, or none with a main definition. */
  kindOf(nsid: string): LexiconKind | undefined {
    return this.#mains.get(nsid)?.type
  }

  /** Whether a call of this method has a body of JSON. */
  takesInput(nsid: string): boolean {
    const main = this.#method(nsid)
    return main.type === 'procedure' && main.input?.encoding === 'application/json'
  }

  /**
   * The record itself, known to be data and to fit the lexicon of `collection`, one that `has`.
   * The record's key is not looked at.
   * @throws XrpcError 400 `InvalidRecord`, whose message names the path
   */
  checkRecord(collection: string, record: unknown): DataObject {
    const definition = this.#mains.get(collection)
    assert(definition?.type === 'record', `${collection} is the lexicon of a record`)
    try {
      checkDataObject(record)
      if (record['$type'] !== collection) {
        throw new ValidationError(`Record/$type must be ${collection}`)
      }
      if (this.#isCertainRecord(definition.record, record)) return record
      checkStrictly(this.#lexicons, { definition, value: record, path: 'Record' })
      this.#lexicons.assertValidRecord(collection, lexValue(record))
      return record
    } catch (error) {
      throw refusal(error, 'InvalidRecord')
    }
  }

  /**
   * A record of a collection whose lexicon is not here, known to be data and no more.
   * @throws XrpcError 400 `InvalidRecord`, whose message names the path
   */
  checkUnknown(record: unknown): DataObject {
    try {
      checkDataObject(record)
      return record
    } catch (error) {
      throw refusal(error, 'InvalidRecord')
    }
  }

  /**
   * The parameters of a method, of the types that its lexicon says, defaults filled in. Those that
   * the lexicon does not know are left out.
   * @throws XrpcError 400 `InvalidRequest`, whose message names the parameter
   */
  checkParams(nsid: string, search: URLSearchParams): Record<string, unknown> {
    const { parameters } = this.#method(nsid)
    if (parameters === undefined) return {}
    try {
      const given = parse(parameters, search)
      if (this.#isCertain(parameters, given)) return given
      return this.#lexicons.assertValidXrpcParams(nsid, given) ?? {}
    } catch (error) {
      throw refusal(error, 'InvalidRequest')
    }
  }

  /**
   * The body of a procedure, defaults filled in. Members of type `unknown`, such as a record, are
   * known to be objects and no more; members that the lexicon does not know stay. Empty where the
   * method takes no JSON. A lexicon whose input holds bytes or links is not served by this.
   * @throws XrpcError 400 `InvalidRequest`, whose message names the path
   */
  checkInput(nsid: string, body: unknown): Record<string, unknown> {
    const main = this.#method(nsid)
    const definition = main.type === 'procedure' ? main.input?.schema : undefined
    if (definition === undefined) return {}
    if (definition.type === 'object' && isPlain(body) && this.#isCertain(definition, body)) {
      return body
    }
    try {
      checkStrictly(this.#lexicons, { definition, value: body, path: 'Input' })
      const checked: unknown = this.#lexicons.assertValidXrpcInput(nsid, body)
      assert(isObject(checked), 'the package has checked that it is an object')
      return checked
    } catch (error) {
      throw refusal(error, 'InvalidRequest')
    }
  }

  /**
   * Nothing, when `body` is what the lexicon promises.
   * @throws Error otherwise: a fault of ours
   */
  checkOutput(nsid: string, body: unknown): void {
    const main = this.#method(nsid)
    const definition: Definition | undefined =
      main.type === 'subscription' ? undefined : main.output?.schema
    if (definition === undefined) return
    try {
      checkStrictly(this.#lexicons, { definition, value: body, path: 'Output' })
      this.#lexicons.assertValidXrpcOutput(nsid, jsonToLex(body))
    } catch (error) {
      throw new Error(`the answer of ${nsid} breaks its lexicon`, { cause: error })
    }
  }

  /** Whether members are right beyond doubt, by a check made at the first call. */
  #isCertain(definition: LexXrpcParameters | LexObject, members: Record<string, unknown>): boolean {
    let check = this.#checks.get(definition)
    if (check === undefined) {
      check = memberCheck(definition) ?? (() => false)
      this.#checks.set(definition, check)
    }
    return check(members)
  }

  #isCertainRecord(definition: LexObject, record: DataObject): boolean {
    let check = this.#checks.get(definition)
    if (check === undefined) {
      check = closedCheck(definition, (ref) => this.#object(ref)) ?? (() => false)
      this.#checks.set(definition, check)
    }
    return check(record)
  }

  #object(ref: string): LexObject | undefined {
    const definition = this.#lexicons.getDef(ref)
    return definition?.type === 'object' ? definition : undefined
  }

  #method(nsid: string): Extract<LexUserType, { type: 'query' | 'procedure' | 'subscription' }> {
    const main = this.#mains.get(nsid)
    const isMethod =
      main?.type === 'query' || main?.type === 'procedure' || main?.type === 'subscription'
    assert(isMethod, `${nsid} is the lexicon of a method`)
    return main
  }
}

/** `error` as the caller gets it; a fault of ours stays what it is. */
function refusal(error: unknown, name: 'InvalidRecord' | 'InvalidRequest'): unknown {
  // The package writes references as URIs of its own.
  if (error instanceof ValidationError) {
    return new XrpcError(400, name, error.message.replaceAll('lex:', ''), { cause: error })
  }
  if (error instanceof DataError) {
    return new XrpcError(400, name, error.message.replace('$', 'Record'), { cause: error })
  }
  return error
}

/** A record in the form that the package checks: links as objects of its own. */
function lexValue(record: DataObject): unknown {
  try {
    return jsonToLex(record)
  } catch (error) {
    // It takes any object with `cid` and `mimeType` for a blob of the old form.
    if (!(error instanceof Error)) throw error
    throw new ValidationError('Record holds a blob of the old form whose "cid" is none')
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** An object that stands for no link, bytes or blob. */
function isPlain(value: unknown): value is Record<string, unknown> {
  return isObject(value) && !('$link' in value || '$bytes' in value || '$type' in value)
}

/** @throws XrpcError where a text is none of the parameter's type */
function parse(parameters: LexXrpcParameters, search: URLSearchParams): Record<string, unknown> {
  const given: Record<string, unknown> = {}
  for (const [name, definition] of Object.entries(parameters.properties)) {
    const texts = search.getAll(name)
    const [text] = texts
    if (text === undefined) continue
    if (definition.type === 'array') {
      const { type } = definition.items
      given[name] = texts.map((item) => parseOne(type, item, name))
      continue
    }
    if (texts.length > 1) throw invalidRequest(`${name} must not be given more than once`)
    given[name] = parseOne(definition.type, text, name)
  }
  return given
}

type ParameterType = 'string' | 'integer' | 'boolean' | 'unknown'

function parseOne(type: ParameterType, text: string, name: string): string | number | boolean {
  switch (type) {
    case 'string':
    case 'unknown':
      return text
    case 'integer': {
      const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN
      if (!Number.isSafeInteger(value)) throw invalidRequest(`${name} must be an integer`)
      return value
    }
    case 'boolean':
      if (text !== 'true' && text !== 'false') {
        throw invalidRequest(`${name} must be true or false`)
      }
      return text === 'true'
    default:
      return unreachable(type)
  }
}
