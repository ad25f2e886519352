import type { Did, Tid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import type { PlannedClient, PlannedRequest, Step } from './plan.ts'

/** What the plans need to know of a server: ours, or an official PDS. */
export interface WriteTarget {
  /** Its methods begin so: `com.atproto.repo` for one. */
  readonly methods: string
  readonly collection: string
  readonly headersOf: (did: Did) => Readonly<Record<string, string>>
  /** A small post. */
  readonly record: Readonly<Record<string, unknown>>
}

export interface WritePlan {
  readonly requests: readonly PlannedRequest[]
  /** For each request whose repo it changes, and how many records there are more by it. */
  readonly effects: readonly { readonly did: Did; readonly added: number }[]
  readonly clients: readonly PlannedClient[]
}

export const postText = 'A small post of the length that people write most often, give or take.'

/** Each client creates records in one repo. */
export function creating(target: WriteTarget, writers: readonly Did[]): WritePlan {
  const dids = [...new Set(writers)]
  return {
    requests: dids.map((did) => createRequest(target, did)),
    effects: dids.map((did) => ({ did, added: 1 })),
    clients: writers.map((did) => ({ steps: [[dids.indexOf(did)]], repeats: true })),
  }
}

/**
 * The same, with a token of its own on each request. They are made before, for making one takes
 * about as long as a write.
 */
export function creatingWithTokens(
  target: WriteTarget,
  writers: readonly Did[],
  tokensOf: (did: Did) => readonly string[],
): WritePlan {
  const headersOf = () => ({ Authorization: 'Bearer <word>' })
  const plan = creating({ ...target, headersOf }, writers)
  const clients = writers.map((did) => ({
    steps: tokensOf(did).map((token): Step => [
      plan.effects.findIndex((effect) => effect.did === did),
      token,
    ]),
    repeats: false,
  }))
  return { ...plan, clients }
}

/** One client that creates `count` records by a request, in one repo after the other. */
export function applying(target: WriteTarget, dids: readonly Did[], count: number): WritePlan {
  const keys = Array.from({ length: count }, () => undefined)
  return {
    requests: dids.map((did) => applyRequest(target, did, keys)),
    effects: dids.map((did) => ({ did, added: count })),
    clients: [{ steps: dids.map((_, index): Step => [index]), repeats: true }],
  }
}

/** One client that creates `count` records, one in each repo in turn, by these keys or by new ones. */
export function inserting(
  target: WriteTarget,
  dids: readonly Did[],
  { count, keyOf }: { readonly count: number; readonly keyOf?: (() => Tid) | undefined },
): WritePlan {
  const rkey = keyOf === undefined ? {} : { rkey: '<word>' }
  const steps = Array.from({ length: count }, (_, index): Step => {
    const place = index % dids.length
    return keyOf === undefined ? [place] : [place, keyOf()]
  })
  return {
    requests: dids.map((did) => createRequest(target, did, rkey)),
    effects: dids.map((did) => ({ did, added: 1 })),
    clients: [{ steps, repeats: false }],
  }
}

/** Each of these people creates `count` records, some people at once, everybody once. */
export function filling(
  target: WriteTarget,
  dids: readonly Did[],
  { count, clients }: { readonly count: number; readonly clients: number },
): WritePlan {
  const shares = dealt(dids, clients)
  return {
    requests: dids.map((did) => createRequest(target, did)),
    effects: dids.map((did) => ({ did, added: 1 })),
    clients: shares.map((share) => ({
      steps: share.flatMap(({ index }) => Array.from({ length: count }, (): Step => [index])),
      repeats: false,
    })),
  }
}

/**
 * What people have before `mixing`, with keys that it then knows: as many as `keys` has.
 */
export function preparing(
  target: WriteTarget,
  dids: readonly Did[],
  { keys, clients }: { readonly keys: readonly Tid[]; readonly clients: number },
): WritePlan {
  return {
    requests: dids.map((did) => applyRequest(target, did, keys)),
    effects: dids.map((did) => ({ did, added: keys.length })),
    clients: dealt(dids, clients).map((share) => ({
      steps: share.map(({ index }): Step => [index]),
      repeats: false,
    })),
  }
}

/** Of 10 writes 7 create, 2 replace, 1 deletes; whose repo it is, is left to chance. */
export function mixing(
  target: WriteTarget,
  dids: readonly Did[],
  options: {
    readonly keys: readonly Tid[]
    readonly clients: number
    readonly stepsPerClient: number
  },
): WritePlan {
  const requests = dids.flatMap((did) => [
    createRequest(target, did),
    putRequest(target, did),
    deleteRequest(target, did),
  ])
  const effects = dids.flatMap((did) => [1, 0, -1].map((added) => ({ did, added })))
  const clients = dealt(dids, options.clients).map((share) => {
    const owners = share.map(({ index }) => ({ index, keys: [...options.keys] }))
    const steps = Array.from({ length: options.stepsPerClient }, (): Step => {
      const owner = owners[Math.floor(Math.random() * owners.length)]
      if (owner === undefined) throw new Error('a client without people')
      const chance = Math.random()
      const key = owner.keys[Math.floor(Math.random() * owner.keys.length)]
      if (chance < 0.7 || key === undefined) return [owner.index * 3]
      if (chance < 0.9) return [owner.index * 3 + 1, key]
      owner.keys.splice(owner.keys.indexOf(key), 1)
      return [owner.index * 3 + 2, key]
    })
    return { steps, repeats: false }
  })
  return { requests, effects, clients }
}

/** Keys for records, in order. */
export function someKeys(count: number): Tid[] {
  const keys: Tid[] = []
  for (let index = 0; index < count; index++) {
    keys.push(nextTid({ nowMs: Date.now(), clockId: 5, after: keys.at(-1) }))
  }
  return keys
}

/** Cards to players: as many to each as possible. */
function dealt(dids: readonly Did[], clients: number): { did: Did; index: number }[][] {
  const all = dids.map((did, index) => ({ did, index }))
  return Array.from({ length: Math.min(clients, dids.length) }, (_, client) =>
    all.filter(({ index }) => index % clients === client),
  )
}

function createRequest(
  target: WriteTarget,
  did: Did,
  rkey: { readonly rkey?: string } = {},
): PlannedRequest {
  const { collection, record } = target
  const body = { repo: did, collection, ...rkey, record }
  return writeRequest(target, did, { method: 'createRecord', records: 'one', body })
}

function putRequest(target: WriteTarget, did: Did): PlannedRequest {
  const { collection } = target
  // A record that says the same as before would make no commit.
  const record = { ...target.record, text: `${postText} Changed <count>` }
  const body = { repo: did, collection, rkey: '<word>', record }
  return writeRequest(target, did, { method: 'putRecord', records: 'one', body })
}

function deleteRequest(target: WriteTarget, did: Did): PlannedRequest {
  const body = { repo: did, collection: target.collection, rkey: '<word>' }
  return writeRequest(target, did, { method: 'deleteRecord', records: 'none', body })
}

function applyRequest(
  target: WriteTarget,
  did: Did,
  keys: readonly (Tid | undefined)[],
): PlannedRequest {
  const { methods, collection, record } = target
  const writes = keys.map((rkey) => {
    const named = rkey === undefined ? {} : { rkey }
    return { $type: `${methods}.applyWrites#create`, collection, ...named, value: record }
  })
  const body = { repo: did, writes }
  return writeRequest(target, did, { method: 'applyWrites', records: keys.length, body })
}

function writeRequest(
  { methods, collection, headersOf }: WriteTarget,
  did: Did,
  call: {
    readonly method: string
    readonly records: 'none' | 'one' | number
    readonly body: object
  },
): PlannedRequest {
  const { method, records, body } = call
  return {
    verb: 'POST',
    path: `/xrpc/${methods}.${method}`,
    headers: headersOf(did),
    body: JSON.stringify(body),
    expected: { kind: 'commit', repo: did, collection, records },
  }
}
