import type { Did } from '../atproto/syntax.ts'
import type { EventsAnswer } from '../service/calls.ts'

interface Place {
  readonly did: Did
  readonly after: number
  /** Where the log ends: a page of another log than that of now is none. */
  readonly head: number
}

/**
 * Pages that were just read, for readers who see all: after a break they are back at once and ask
 * for the same ones. Of an actor who does anything no page is kept.
 */
export class EventPages {
  readonly #pages = new Map<string, { readonly place: Place; readonly page: Page }>()

  /** The page of this place, each time with bytes of its own: they are given away. */
  async of(place: Place, read: () => Page): Page {
    const key = `${place.did} ${place.after}`
    const kept = this.#pages.get(key)
    const page = kept?.place.head === place.head ? kept.page : this.#keep(key, place, read())
    const answer = await page
    return { ...answer, bytes: answer.bytes.slice() }
  }

  forget(did: Did): void {
    for (const [key, { place }] of this.#pages) if (place.did === did) this.#pages.delete(key)
  }

  #keep(key: string, place: Place, page: Page): Page {
    this.#pages.delete(key)
    this.#pages.set(key, { place, page })
    const [oldest] = this.#pages.keys()
    if (oldest !== undefined && this.#pages.size > pagesMax) this.#pages.delete(oldest)
    // Whoever waits for it learns why; the next one is to try again.
    page.catch(() => {
      if (this.#pages.get(key)?.page === page) this.#pages.delete(key)
    })
    return page
  }
}

type Page = Promise<EventsAnswer>

/** Of a mebibyte each, and what one commit may be beyond it. */
const pagesMax = 4
