import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { type BlobRef, picturePost } from '../kit/blob.ts'
import { postCollection } from '../kit/post.ts'
import { updateStatus } from '../kit/takedown.ts'
import { within } from '../kit/wait.ts'
import { type Answer, type Call, xrpc } from '../kit/xrpc.ts'
import { some } from '../store/blobs.ts'
import type { Dice } from './dice.ts'

/** Bytes, and how a record names them. */
export interface Content {
  readonly cid: Cid
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly ref: BlobRef
}

export function contentOf(size: number): Content {
  const bytes = new Uint8Array(some(size))
  const cid = cidToString(cidForRaw(bytes))
  const ref = { $type: 'blob', ref: { $link: cid }, mimeType: 'image/x-some', size } as const
  return { cid, bytes, ref }
}

export interface BlobLoadOptions {
  readonly url: string
  /** Qualified. */
  readonly boundary: string
  readonly admin: string
  readonly dice: Dice
}

/** What a caller knows of one person's blobs. */
export interface Known {
  readonly did: Did
  /** Of all contents that are used over and over. */
  readonly contents: readonly Content[]
  /** By key: the contents that the record names; undefined where it was deleted. */
  readonly records: Map<string, readonly Cid[] | undefined>
  /** Keys of which a write was not answered. */
  readonly unsure: Set<string>
  /** Uploaded for certain, and named by nobody. */
  readonly waiting: Content[]
}

/** Writers of posts with pictures who go on until the service is killed. */
export class BlobLoad {
  answers = 0
  readonly #options: BlobLoadOptions
  readonly #writers: Promise<void>[] = []
  /** Who waits for so many answers. */
  #awaited: { readonly count: number; readonly come: () => void } | undefined
  #ending = false

  constructor(options: BlobLoadOptions) {
    this.#options = options
  }

  /** @param keys this writer's own */
  startWriter(known: Known, keys: readonly string[]): void {
    this.#writers.push(this.#until(() => this.#act(known, keys)))
  }

  /** Uploads what nobody names. */
  startUploader(known: Known): void {
    this.#writers.push(
      this.#until(async () => {
        const content = contentOf(this.#options.dice.between(4, 300_000))
        if (await this.#upload(known.did, content)) known.waiting.push(content)
      }),
    )
  }

  /** Waits until so many requests were answered. @throws where a writer fails before */
  async answered(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#awaited = { count, come: resolve }
    const what = `${count} answers`
    await within(answersMsMax, what, Promise.race([promise, this.ended()]))
  }

  expectEnd(): void {
    this.#ending = true
  }

  async ended(): Promise<void> {
    await Promise.all(this.#writers)
  }

  async #until(act: () => Promise<void>): Promise<void> {
    while (!this.#ending) {
      try {
        await act()
        this.answers += 1
        if (this.answers === this.#awaited?.count) this.#awaited.come()
      } catch (error) {
        if (!this.#ending) throw error
      }
    }
  }

  async #act(known: Known, keys: readonly string[]): Promise<void> {
    const { dice } = this.#options
    const content = dice.one(known.contents)
    switch (dice.one(['upload', 'put', 'put', 'put', 'delete', 'takedown'] as const)) {
      case 'upload':
        await this.#upload(known.did, content)
        return
      case 'put':
        return await this.#put(known, dice.one(keys), [content, dice.one(known.contents)])
      case 'delete':
        return await this.#delete(known, dice.one(keys))
      case 'takedown':
        return await this.#takedown(known.did, content)
    }
  }

  async #upload(did: Did, { bytes, ref }: Content): Promise<boolean> {
    const headers = { 'content-type': ref.mimeType }
    const answer = await this.#call('uploadBlob', { did, call: { body: bytes, headers } })
    return isTaken(answer, 'BlobTakendown')
  }

  async #put(known: Known, rkey: string, contents: readonly [Content, Content]): Promise<void> {
    const { dice, boundary } = this.#options
    const [first, second] = contents
    const post = picturePost(`post ${dice.below(1_000_000)}`, [boundary], first.ref)
    const images = [...post.embed.images, { image: second.ref, alt: '' }]
    const record = { ...post, embed: { ...post.embed, images } }
    if (dice.oneIn(2)) for (const content of contents) await this.#upload(known.did, content)
    await this.#write(known, rkey, async () => {
      const input = { repo: known.did, collection: postCollection, rkey, record }
      const answer = await this.#call('putRecord', { did: known.did, call: { input } })
      if (isTaken(answer, 'BlobNotFound')) known.records.set(rkey, [first.cid, second.cid])
    })
  }

  async #delete(known: Known, rkey: string): Promise<void> {
    await this.#write(known, rkey, async () => {
      const input = { repo: known.did, collection: postCollection, rkey }
      const answer = await this.#call('deleteRecord', { did: known.did, call: { input } })
      if (isTaken(answer)) known.records.set(rkey, undefined)
    })
  }

  async #takedown(did: Did, { cid }: Content): Promise<void> {
    const { url, admin, dice } = this.#options
    const subject = { $type: 'com.atproto.admin.defs#repoBlobRef', did, cid }
    // Most are let up again, so that there are some to be read.
    const input = { subject, takedown: { applied: dice.oneIn(3) } }
    isTaken(await xrpc(url, updateStatus, { input, authorization: admin }))
  }

  async #write(known: Known, rkey: string, write: () => Promise<void>): Promise<void> {
    known.unsure.add(rkey)
    await write()
    known.unsure.delete(rkey)
  }

  #call(name: string, { did, call }: { did: Did; call: Call }): Promise<Answer> {
    const authorization = `Bearer ${did}`
    return xrpc(this.#options.url, `zone.stratos.repo.${name}`, { ...call, authorization })
  }
}

const answersMsMax = 30_000

/** @throws for a refusal of another name */
function isTaken({ status, body }: Answer, refusal?: string): boolean {
  if (status === 200) return true
  if (refusal !== undefined && body['error'] === refusal) return false
  throw new Error(`answered ${status} ${JSON.stringify(body)}`)
}
