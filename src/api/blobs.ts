import { isCid } from '../atproto/cid.ts'
import { invalidRequest } from '../atproto/errors.ts'
import { type Did, parseDid, parseTid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { BlobQuery } from '../store/actor-blobs.ts'
import { askedBlob, type BlobContent } from './blob-content.ts'
import type { BlobLinks } from './blob-links.ts'
import { blobUploadMethods, type UploadParts } from './blob-upload.ts'
import { grantOf } from './caller.ts'
import { number, text } from '../atproto/members.ts'
import { findWholeRepo } from './whole-repo.ts'
import type { Answer, Call, Method } from './xrpc.ts'

interface Parts extends UploadParts {
  readonly content: BlobContent
  readonly links: BlobLinks
}

/** Private blobs, under the names of the PDS and our own. @see protocol.md, section 7 */
export function blobMethods(parts: Parts): Record<string, Method> {
  const { content, links } = parts
  const reads = new BlobLists(parts)
  const getBlob: Method = {
    audience: 'anyone',
    handle: ({ request, params, caller, requestId }) =>
      content.answer(request, { asked: asking(params), caller, requestId }),
  }
  const listBlobs: Method = { audience: 'anyone', handle: (call) => reads.list(call) }
  return {
    ...blobUploadMethods(parts),
    'com.atproto.sync.getBlob': getBlob,
    'zone.stratos.sync.getBlob': getBlob,
    'zone.stratos.sync.getBlobUrl': {
      audience: 'anyone',
      handle: async ({ params, caller, requestId }) => {
        const asked = asking(params)
        await content.find(caller, asked, requestId)
        return { body: links.make(caller, asked) }
      },
    },
    'com.atproto.sync.listBlobs': listBlobs,
    'zone.stratos.sync.listBlobs': listBlobs,
    'com.atproto.repo.listMissingBlobs': {
      audience: 'user',
      handle: async (call) => {
        assert(call.caller.kind === 'user', 'the door lets people in and nobody else')
        const { cids: _, ...body } = await reads.missing(call, call.caller.did)
        return { body }
      },
    },
    'zone.stratos.repo.listMissingBlobs': {
      audience: 'anyone',
      handle: async (call) => ({
        body: await reads.missing(call, parseDid(text(call.params, 'did') ?? '')),
      }),
    },
  }
}

class BlobLists {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async list(call: Call): Promise<Answer> {
    const { params, requestId } = call
    const did = parseDid(text(params, 'did') ?? '')
    const query = await this.#query(call, did)
    const { cids } = await this.#parts.call(did, requestId, { kind: 'blobs', ...query })
    return { body: { cids, ...cursorAfter(cids, query) } }
  }

  async missing(call: Call, did: Did) {
    const query = await this.#query(call, did)
    const ask = { kind: 'missing-blobs', ...query } as const
    const { missing } = await this.#parts.call(did, call.requestId, ask)
    const cids = missing.map(({ cid }) => cid)
    const blobs = missing.map(({ cid, uri }) => ({ cid, recordUri: uri }))
    return { cids, blobs, ...cursorAfter(cids, query) }
  }

  /** @throws XrpcError as `findWholeRepo` does, and 400 for a cursor that is none */
  async #query({ params, caller }: Call, did: Did): Promise<BlobQuery> {
    const { enrollments } = this.#parts
    const { records, blobs: except } = await findWholeRepo(caller, did, this.#parts)
    const boundaries = caller.kind === 'service' ? grantOf(caller, enrollments) : 'all'
    const after = text(params, 'cursor') ?? ''
    if (after !== '' && !isCid(after)) throw invalidRequest('cursor must be of an answer before')
    const sinceText = text(params, 'since')
    const since = sinceText === undefined ? undefined : parseTid(sinceText)
    const limit = number(params, 'limit') ?? limitDefault
    return { after, limit, since, except, view: { boundaries, except: records } }
  }
}

const limitDefault = 500

function asking(params: Call['params']) {
  return askedBlob(text(params, 'did') ?? '', text(params, 'cid') ?? '')
}

/** There may be more where a page is full. */
function cursorAfter(cids: readonly string[], { limit }: BlobQuery): { readonly cursor?: string } {
  const last = cids.at(-1)
  return last === undefined || cids.length < limit ? {} : { cursor: last }
}
