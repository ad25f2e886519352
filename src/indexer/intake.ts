import type { Did } from '../atproto/syntax.ts'
import { frameBytes, type IndexEvent } from './event.ts'
import type { IndexWriter, Member } from './writer.ts'

type Step =
  | { readonly kind: 'events'; readonly events: IndexEvent[] }
  | { readonly kind: 'members'; readonly members: Map<Did, Member> }
  | { readonly kind: 'left'; readonly did: Did }
  | { readonly kind: 'heard'; readonly atMs: number; readonly stored: () => void }

/**
 * What one service said, on its way to the writer: in the order in which it came, as much of a kind
 * at once as came together. Whoever flushes waits while the index is slow.
 */
export class Intake {
  readonly #writer: Writer
  readonly #service: Did
  readonly #under = new Set<Promise<void>>()
  #steps: Step[] = []
  #serviceUrl = ''
  #waiting = 0
  #waitingBytes = 0
  #broken: { readonly error: unknown } | undefined

  constructor(writer: Writer, service: Did) {
    this.#writer = writer
    this.#service = service
  }

  /** Events that came and are not stored. */
  get waiting(): number {
    return this.#waiting
  }

  /** Why the writer takes nothing any more, once that is so. */
  get broken(): { readonly error: unknown } | undefined {
    return this.#broken
  }

  event(event: IndexEvent): void {
    this.#waiting += 1
    this.#waitingBytes += frameBytes(event)
    const last = this.#steps.at(-1)
    if (last?.kind === 'events') last.events.push(event)
    else this.#steps.push({ kind: 'events', events: [event] })
  }

  /** The public URL of the service, as far as it is known. */
  get serviceUrl(): string {
    return this.#serviceUrl
  }

  at(serviceUrl: string): void {
    this.#serviceUrl = serviceUrl
  }

  member(member: Omit<Member, 'service'>): void {
    const { did, serviceUrl } = member
    this.#serviceUrl = serviceUrl
    const whole = { ...member, service: this.#service }
    const last = this.#steps.at(-1)
    // The last that is said of somebody counts.
    if (last?.kind === 'members') last.members.set(did, whole)
    else this.#steps.push({ kind: 'members', members: new Map([[did, whole]]) })
  }

  left(did: Did): void {
    this.#steps.push({ kind: 'left', did })
  }

  /** All until `atMs` came before. @param stored is called once it is stored */
  heard(atMs: number, stored: () => void): void {
    this.#steps.push({ kind: 'heard', atMs, stored })
  }

  /** Hands over what came; resolves when there is little that is still to be stored. */
  async flush(): Promise<void> {
    const steps = this.#steps
    this.#steps = []
    if (steps.length > 0) this.#track(Promise.all(steps.map((step) => this.#give(step))))
    while (this.#under.size > (this.#waitingBytes > bytesMax ? 1 : underMax)) {
      await Promise.race(this.#under)
    }
    if (this.#broken !== undefined) throw this.#broken.error
  }

  /** Resolves when all that came is stored. */
  async stored(): Promise<void> {
    await this.flush()
    await Promise.all(this.#under)
    if (this.#broken !== undefined) throw this.#broken.error
  }

  #track(given: Promise<unknown>): void {
    const tracked = given.then(
      () => void this.#under.delete(tracked),
      (error: unknown) => {
        this.#broken ??= { error }
        this.#under.delete(tracked)
      },
    )
    this.#under.add(tracked)
  }

  /** The writer takes what it is given in this turn, in this order. */
  async #give(step: Step): Promise<void> {
    const [writer, service] = [this.#writer, this.#service]
    switch (step.kind) {
      case 'events':
        await writer.write(step.events)
        this.#waiting -= step.events.length
        for (const event of step.events) this.#waitingBytes -= frameBytes(event)
        return
      case 'members':
        return await writer.setEnrollments([...step.members.values()])
      case 'left':
        return await writer.endEnrollment({ service, did: step.did })
      case 'heard': {
        const { atMs, stored } = step
        await writer.heard({ service, serviceUrl: this.#serviceUrl, at: new Date(atMs) })
        stored()
      }
    }
  }
}

type Writer = Pick<IndexWriter, 'write' | 'setEnrollments' | 'endEnrollment' | 'heard'>

/** Batches on their way beside the one that is read: while the index is behind, its lanes are full. */
const underMax = 8
/** Of frames: beyond it one batch is on its way beside the one that is read. */
const bytesMax = 8 * 1024 * 1024
