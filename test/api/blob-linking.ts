import { type BlobRef, getBlob, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Call, textOf } from '../kit/xrpc.ts'

export const getUrl = 'zone.stratos.sync.getBlobUrl'

/** A blob and the record that shows it. */
export interface Shown {
  readonly cid: string
  readonly uri: string
  readonly ref: BlobRef
  readonly bytes: Uint8Array
}

/** A service with people who show each other pictures, and an AppView that may read the boundary a. */
export class Linking implements AsyncDisposable {
  readonly stratos: SeededStratos
  #log = ''

  private constructor(stratos: SeededStratos) {
    this.stratos = stratos
  }

  static async start(): Promise<Linking> {
    const people = { alice: ['a', 'b'], bob: ['a'], carol: ['b'], lou: ['a'], mo: ['a'] }
    const env = { LOG_LEVEL: 'debug' }
    const stratos = await SeededStratos.start({ people, strangers: ['view'], env })
    const linking = new Linking(stratos)
    await linking.restart({ STRATOS_ALLOWED_APPVIEWS: `${linking.did('view')}=a` })
    return linking
  }

  /** All that was logged so far. */
  get log(): string {
    return this.#log + this.stratos.log
  }

  did(name: string): string {
    return this.stratos.person(name).did
  }

  async restart(env: Readonly<Record<string, string>>): Promise<void> {
    this.#log += this.stratos.log
    await this.stratos.terminate()
    await this.stratos.run(env)
  }

  async show(
    owner: string,
    bare: readonly string[],
    bytes: Uint8Array<ArrayBuffer> = picture(),
  ): Promise<Shown> {
    const ref = await uploadBlob(this.stratos, owner, { bytes })
    return { cid: ref.ref.$link, uri: await this.post(owner, bare, ref), ref, bytes }
  }

  /** @returns the URI of one more record that names a blob */
  async post(owner: string, bare: readonly string[], ref: BlobRef): Promise<string> {
    const record = this.#record(bare, ref)
    const input = { repo: this.did(owner), collection: postCollection, record }
    return textOf(await this.#call(owner, 'zone.stratos.repo.createRecord', { input }), 'uri')
  }

  async put({ uri }: Shown, bare: readonly string[], ref: BlobRef): Promise<void> {
    const input = { ...addressOf(uri), record: this.#record(bare, ref) }
    await this.#call('alice', 'zone.stratos.repo.putRecord', { input })
  }

  async remove(uri: string): Promise<void> {
    await this.#call('alice', 'zone.stratos.repo.deleteRecord', { input: addressOf(uri) })
  }

  async leave(name: string): Promise<void> {
    await this.#call(name, 'zone.stratos.enrollment.unenroll', { verb: 'POST' })
  }

  params({ cid }: Pick<Shown, 'cid'>, owner = 'alice') {
    return { did: this.did(owner), cid }
  }

  /** Made for somebody. */
  async link(name: string, one: Shown, owner = 'alice'): Promise<string> {
    const params = this.params(one, owner)
    return textOf(await this.#call(name, getUrl, { params }), 'url')
  }

  /** One that nobody made. */
  never({ cid }: Shown): string {
    return `${this.stratos.url}/blob/${encodeURIComponent(this.did('alice'))}/${cid}?signature=no`
  }

  /** What somebody gets of a blob of alice's without a link. */
  async seen(name: string, { cid }: Shown): Promise<number> {
    const authorization = this.stratos.person(name).bearer
    const { status, body } = await getBlob(this.stratos, 'alice', { cid, authorization })
    await body?.cancel()
    return status
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stratos.stop()
  }

  #record(bare: readonly string[], ref: BlobRef) {
    const boundaries = bare.map((one) => this.stratos.boundary(one))
    return picturePost('a picture', boundaries, ref)
  }

  async #call(name: string, nsid: string, call: Call) {
    const { status, body } = await this.stratos.callAs(name, nsid, call)
    if (status !== 200) throw new Error(`${nsid} answered ${status} ${JSON.stringify(body)}`)
    return body
  }
}

export async function statusOf(url: string | URL): Promise<number> {
  const { status, body } = await fetch(url)
  await body?.cancel()
  return status
}
