import type { Did } from '../../src/atproto/syntax.ts'

export interface Write {
  readonly action: 'create' | 'update' | 'delete'
  readonly rkey: string
}

/** What happened in view of a caller, in order. `number` is that of the request. */
export type Note =
  | {
      readonly kind: 'asked'
      readonly number: number
      /** The request whose answer the same writer had before. */
      readonly after?: number | undefined
      readonly did: Did
      readonly writes: Write[]
    }
  | {
      readonly kind: 'answered'
      readonly number: number
      /** One for each write; null for a deletion. */
      readonly cids: readonly (string | null)[]
      readonly rev: string
      /** CID of the commit: unlike a rev, it is of one repo only. */
      readonly commit: string
    }
  | { readonly kind: 'service-key'; readonly text: string }
  | { readonly kind: 'enrolled'; readonly did: Did; readonly signingKey: string }
  /** A stub on its way to the person's PDS, with the CID of its record. */
  | {
      readonly kind: 'published'
      readonly did: Did
      readonly rkey: string
      readonly cid: string
    }
  | { readonly kind: 'leaving'; readonly did: Did }
  | { readonly kind: 'left'; readonly did: Did }

type Asked = Note & { readonly kind: 'asked' }

/** A record as a ledger knows it: the request that wrote it, and its CID where that was told. */
interface Standing {
  readonly number: number
  readonly cid?: string | undefined
}

/** A record as it was found: its text names the request that wrote it. */
export interface Found {
  readonly number: number
  readonly cid: string
}

/** An answered request, to be found again among the events. */
export interface Answered {
  readonly rev: string
  readonly writes: readonly (Write & { readonly cid: string | null })[]
}

/**
 * What callers were told, and so what has to be there. A request without an answer may have been
 * done or not, but wholly: until it is settled, its keys belong to it alone.
 */
export class Ledger {
  serviceKey: string | undefined
  /** Signing keys by DID. */
  readonly enrolled = new Map<Did, string>()
  readonly leaving = new Set<Did>()
  readonly left = new Set<Did>()
  /** What people's PDSes were told, by all of them. */
  readonly published: (Note & { readonly kind: 'published' })[] = []
  readonly #standing = new Map<Did, Map<string, Standing>>()
  readonly #open = new Map<number, Asked>()
  readonly #answered = new Map<Did, Answered[]>()

  note(note: Note): void {
    switch (note.kind) {
      case 'asked':
        this.#open.set(note.number, note)
        return
      case 'answered':
        return this.#answer(note)
      case 'service-key':
        this.serviceKey = note.text
        return
      case 'enrolled':
        this.enrolled.set(note.did, note.signingKey)
        return
      case 'published':
        this.published.push(note)
        return
      case 'leaving':
        this.leaving.add(note.did)
        return
      case 'left':
        this.left.add(note.did)
        this.enrolled.delete(note.did)
        return
    }
  }

  answered(did: Did): readonly Answered[] {
    return this.#answered.get(did) ?? []
  }

  /** Keys of records that nobody is writing to. */
  settledKeys(did: Did): string[] {
    const busy = new Set(this.#openOf(did).flatMap(({ writes }) => writes.map(({ rkey }) => rkey)))
    return [...this.#of(did).keys()].filter((rkey) => !busy.has(rkey))
  }

  /** One complaint for each way in which what was found differs from what was told. */
  complaints(did: Did, found: ReadonlyMap<string, Found>): string[] {
    const unsure = this.#openOf(did)
    const busy = new Set(unsure.flatMap(({ writes }) => writes.map(({ rkey }) => rkey)))
    const standing = this.#of(did)
    const lost = [...standing]
      .filter(([rkey, told]) => !busy.has(rkey) && !isSame(found.get(rkey), told))
      .map(([rkey, told]) => `${did}: ${rkey} of request ${told.number} is lost`)
    const strange = [...found.keys()]
      .filter((rkey) => !busy.has(rkey) && !standing.has(rkey))
      .map((rkey) => `${did}: ${rkey} should not be there`)
    const torn = unsure
      .filter((asked) => this.#isDone(asked, found) === undefined)
      .map(({ number }) => `${did}: request ${number} was done in part`)
    return [...lost, ...strange, ...torn]
  }

  /** Takes what was found, once it gave no complaint, for what stands: nothing is unsure then. */
  settle(did: Did, found: ReadonlyMap<string, Found>): void {
    this.#standing.set(did, new Map(found))
    for (const { number } of this.#openOf(did)) this.#open.delete(number)
  }

  #answer({ number, cids, rev }: Note & { readonly kind: 'answered' }): void {
    const asked = this.#open.get(number)
    if (asked === undefined) throw new Error(`nobody asked request ${number}`)
    this.#open.delete(number)
    const standing = this.#of(asked.did)
    const writes = asked.writes.map((write, index) => ({ ...write, cid: cids[index] ?? null }))
    for (const { rkey, cid } of writes) {
      if (cid === null) standing.delete(rkey)
      else standing.set(rkey, { number, cid })
    }
    const answered = this.#answered.get(asked.did) ?? []
    answered.push({ rev, writes })
    this.#answered.set(asked.did, answered)
  }

  /** Undefined where it was done in part. */
  #isDone({ did, number, writes }: Asked, found: ReadonlyMap<string, Found>): boolean | undefined {
    const standing = this.#of(did)
    const isDone = ({ action, rkey }: Write) =>
      action === 'delete' ? !found.has(rkey) : found.get(rkey)?.number === number
    const isUndone = ({ rkey }: Write) => isSame(found.get(rkey), standing.get(rkey))
    if (writes.every(isDone)) return true
    return writes.every(isUndone) ? false : undefined
  }

  #openOf(did: Did): Asked[] {
    return [...this.#open.values()].filter((asked) => asked.did === did)
  }

  #of(did: Did): Map<string, Standing> {
    const known = this.#standing.get(did)
    if (known !== undefined) return known
    const fresh = new Map<string, Standing>()
    this.#standing.set(did, fresh)
    return fresh
  }
}

function isSame(found: Found | undefined, told: Standing | undefined): boolean {
  if (found === undefined || told === undefined) return found === told
  return found.number === told.number && (told.cid === undefined || told.cid === found.cid)
}
