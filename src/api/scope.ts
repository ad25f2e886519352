import { XrpcError } from '../atproto/errors.ts'
import { isNsid, recordPlace } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import { isPrivate } from '../service/collections.ts'
import { objects, text, texts } from '../atproto/members.ts'

/** A call whose parameters and input passed their lexicon. */
interface Asked {
  readonly nsid: string
  readonly params: Readonly<Record<string, unknown>>
  readonly input: Readonly<Record<string, unknown>>
}

interface Here {
  readonly serviceDid: string
  /** Without `#`. */
  readonly fragment: string
  /** Collections that are private here: NSIDs, or the beginning of some with `.*`. */
  readonly collections: readonly string[]
}

/**
 * Whether the scope of an access token lets an app make a call.
 *
 * - `transition:generic` lets it make all of them.
 * - `rpc:` does where it names the method, or all methods, at this service.
 * - `repo:` does for records: with each action for writing, with any for reading. For a whole repo
 *   and its blobs, one of any private collection does.
 *
 * What is not understood gives nothing, sets of permissions (`include:`) among it: who published
 * them may change them.
 * @see https://atproto.com/specs/permission
 */
export class Scopes {
  readonly #collections: readonly string[]
  readonly #audiences: ReadonlySet<string>
  /** Apps ask for the same ones. */
  readonly #read = new Lru<string, readonly Permission[]>(scopesMax)

  constructor(here: Here) {
    this.#collections = here.collections
    const service = `${here.serviceDid}#${here.fragment}`
    // A PDS leaves the escape before a port as it is, so that reading takes it away.
    this.#audiences = new Set(['*', service, decodeURIComponent(service)])
  }

  /** @throws XrpcError 403 ScopeMissing */
  check(scope: string, asked: Asked): void {
    const known = this.#read.get(scope)
    const permissions = known ?? readScope(scope)
    if (known === undefined) this.#read.set(scope, permissions)
    if (permissions.some((one) => this.#opens(one, asked.nsid))) return
    const needs = needsOf(asked)
    const granted = permissions.filter((one) => one.kind === 'repo')
    if (needs?.every((need) => granted.some((one) => this.#meets(one, need))) !== true) {
      const message = `the scope of the token does not cover ${asked.nsid}`
      throw new XrpcError(403, 'ScopeMissing', message)
    }
  }

  #opens(permission: Permission, nsid: string): boolean {
    if (permission.kind !== 'rpc') return permission.kind === 'everything'
    const { methods, audience } = permission
    return this.#audiences.has(audience) && (methods.includes('*') || methods.includes(nsid))
  }

  #meets({ collections, actions }: RepoPermission, need: Need): boolean {
    switch (need.kind) {
      case 'write':
        return covers(collections, need.collection) && actions.includes(need.action)
      case 'read':
        return covers(collections, need.collection)
      case 'repo':
        return collections.some((one) => one === '*' || isPrivate(one, this.#collections))
      default:
        return false
    }
  }
}

type Permission = RepoPermission | RpcPermission | { readonly kind: 'everything' }

interface RepoPermission {
  readonly kind: 'repo'
  /** NSIDs, or `*`. */
  readonly collections: readonly string[]
  readonly actions: readonly string[]
}

interface RpcPermission {
  readonly kind: 'rpc'
  /** NSIDs, or `*`. */
  readonly methods: readonly string[]
  /** A DID with a fragment, or `*`. */
  readonly audience: string
}

type Need =
  | { readonly kind: 'write'; readonly collection: string; readonly action: string }
  | { readonly kind: 'read'; readonly collection: string }
  | { readonly kind: 'repo' }

const scopesMax = 1000
const repoActions: readonly string[] = ['create', 'update', 'delete']
const wholeRepo: readonly Need[] = [{ kind: 'repo' }]

/** What a `repo:` permission must give; undefined for a method that is not about records. */
function needsOf({ nsid, params, input }: Asked): readonly Need[] | undefined {
  const method = /^(?:zone\.stratos|com\.atproto)\.((?:repo|sync)\.\w+)$/.exec(nsid)?.[1]
  switch (method ?? '') {
    case 'repo.createRecord':
      return writes(input, 'create')
    case 'repo.putRecord':
      return writes(input, 'create', 'update')
    case 'repo.deleteRecord':
      return writes(input, 'delete')
    case 'repo.applyWrites':
      return orWhole(objects(input, 'writes').flatMap((one) => writes(one, actionOf(one))))
    case 'repo.getRecord':
    case 'repo.listRecords':
    case 'sync.getRecord':
      return [{ kind: 'read', collection: text(params, 'collection') ?? '' }]
    case 'repo.hydrateRecord':
      return orWhole(reads([text(params, 'uri') ?? '']))
    case 'repo.hydrateRecords':
      return orWhole(reads(texts(input, 'uris')))
    case 'repo.describeRepo':
    case 'repo.importRepo':
    case 'repo.listMissingBlobs':
    case 'repo.uploadBlob':
    case 'sync.getBlob':
    case 'sync.getBlobUrl':
    case 'sync.getBlocks':
    case 'sync.getLatestCommit':
    case 'sync.getRepo':
    case 'sync.getRepoStatus':
    case 'sync.listBlobs':
    case 'sync.listRepoOps':
    case 'sync.subscribeRecords':
      return wholeRepo
    default:
      return undefined
  }
}

function writes(members: Asked['input'], ...actions: readonly string[]): Need[] {
  const collection = text(members, 'collection') ?? ''
  return actions.map((action) => ({ kind: 'write', collection, action }))
}

/** `create` of `...#create`. */
function actionOf(write: Asked['input']): string {
  return (text(write, '$type') ?? '').split('#', 2)[1] ?? ''
}

/** A URI of anything but a record is of none that is here. */
function reads(uris: readonly string[]): Need[] {
  const places = uris.map(recordPlace).filter((place) => place !== undefined)
  const collections = new Set(places.map(({ collection }) => collection))
  return [...collections].map((collection) => ({ kind: 'read', collection }))
}

/** A call that is about no record still needs to be that of an app for such records. */
function orWhole(needs: readonly Need[]): readonly Need[] {
  return needs.length === 0 ? wholeRepo : needs
}

function covers(collections: readonly string[], collection: string): boolean {
  return collections.includes('*') || collections.includes(collection)
}

function readScope(scope: string): Permission[] {
  if (scope.length > scopeCharsMax) return []
  return scope.split(' ').flatMap((part) => readPermission(part) ?? [])
}

/** Of a token that fits into a header. */
const scopeCharsMax = 8192

function readPermission(scope: string): Permission | undefined {
  if (scope === 'transition:generic') return { kind: 'everything' }
  const [, kind, place, query] = /^(repo|rpc)(?::([^?]*))?(?:\?(.*))?$/.exec(scope) ?? []
  if (kind === undefined) return undefined
  const params = new URLSearchParams(query ?? '')
  return kind === 'repo' ? readRepo(place, params) : readRpc(place, params)
}

/** `repo:{collection}`, or `repo?collection=...`, and the actions unless it is all of them. */
function readRepo(place: string | undefined, params: URLSearchParams): Permission | undefined {
  const collections = listOf(place, params.getAll('collection'))
  const actions = params.has('action') ? params.getAll('action') : repoActions
  if (!hasOnly(params, ['collection', 'action']) || collections === undefined) return undefined
  if (!actions.every((action) => repoActions.includes(action))) return undefined
  return { kind: 'repo', collections, actions }
}

/** `rpc:{method}?aud=...`, or `rpc?lxm=...&aud=...`. */
function readRpc(place: string | undefined, params: URLSearchParams): Permission | undefined {
  const methods = listOf(place, params.getAll('lxm'))
  const [audience, ...others] = params.getAll('aud')
  if (!hasOnly(params, ['lxm', 'aud']) || methods === undefined) return undefined
  if (audience === undefined || others.length > 0) return undefined
  // Every method anywhere is more than there may be.
  if (audience === '*' && methods.includes('*')) return undefined
  return { kind: 'rpc', methods, audience }
}

/** NSIDs or `*`, at the one place or at the other, and not at both. */
function listOf(
  place: string | undefined,
  listed: readonly string[],
): readonly string[] | undefined {
  if ((place === undefined) === (listed.length === 0)) return undefined
  const list = place === undefined ? listed : [decoded(place)]
  return list.every((one) => one === '*' || isNsid(one)) ? list : undefined
}

function decoded(place: string): string {
  try {
    return decodeURIComponent(place)
  } catch {
    // What is no text is no NSID either.
    return ''
  }
}

function hasOnly(params: URLSearchParams, names: readonly string[]): boolean {
  return [...params.keys()].every((name) => names.includes(name))
}
