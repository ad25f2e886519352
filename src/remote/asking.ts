import type { Did } from '../atproto/syntax.ts'

/**
 * Look-ups of DIDs that are under way: one a DID, and no more at once than the host behind it, or
 * this process, can bear.
 */
export class Asking<Answer> {
  readonly #directoryHost: string
  readonly #running = new Map<Did, Promise<Answer>>()
  readonly #runningByHost = new Map<string, number>()

  /** @param directoryHost where every did:plc is looked up */
  constructor(directoryHost: string) {
    this.#directoryHost = directoryHost
  }

  /** The answer that is on its way for this DID, or a new one; undefined when there is no room. */
  share(did: Did, ask: () => Promise<Answer>): Promise<Answer> | undefined {
    const running = this.#running.get(did)
    if (running !== undefined) return running
    const slots = this.#slots(did)
    if (slots.some(({ host, most }) => (this.#runningByHost.get(host) ?? 0) >= most)) {
      return undefined
    }
    for (const { host } of slots) this.#count(host, 1)
    const asked = ask().finally(() => {
      this.#running.delete(did)
      for (const { host } of slots) this.#count(host, -1)
    })
    this.#running.set(did, asked)
    return asked
  }

  #slots(did: Did): readonly { readonly host: string; readonly most: number }[] {
    if (did.startsWith(webPrefix)) {
      const host = did.slice(webPrefix.length)
      return [
        { host, most: webHostMax },
        { host: webPrefix, most: webMax },
      ]
    }
    return [{ host: this.#directoryHost, most: directoryMax }]
  }

  #count(host: string, by: 1 | -1): void {
    const count = (this.#runningByHost.get(host) ?? 0) + by
    if (count === 0) this.#runningByHost.delete(host)
    else this.#runningByHost.set(host, count)
  }
}

const webPrefix = 'did:web:'
/** A directory answers in some 50 ms, so this is over a thousand accounts a second. */
const directoryMax = 64
/** A host of a did:web carries one document; more at once is somebody playing. */
const webHostMax = 4
/** Over all such hosts: strangers can name any number of them, and let each hang. */
const webMax = 64
