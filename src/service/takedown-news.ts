import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import { blobOf, type SubjectText, type TakedownStore } from '../store/takedown.ts'
import type { BlobKeeper } from './blob-keeper.ts'
import type { CallActor } from './calls.ts'
import type { Enrollments } from './enrollment.ts'

interface Parts {
  /** Bytes of what is taken down go aside. */
  readonly blobs: Pick<BlobKeeper, 'place'>
  readonly takedowns: TakedownStore
  readonly enrollments: Enrollments
  readonly call: CallActor
  readonly log: Log
}

/**
 * What follows from takedowns: those who follow a repo are told by its log what of it is taken down
 * or back, and the bytes of blobs go into quarantine or come back.
 */
export class TakedownNews {
  readonly #parts: Parts
  readonly #turns = new Turns<SubjectText>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /**
   * What changes a subject and then tells of it runs alone: else whoever is done first would have what
   * the other one is about to do count as told.
   */
  async inTurn<Result>(subject: SubjectText, task: () => Promise<Result>): Promise<Result> {
    return await this.#turns.run(subject, task)
  }

  /** Tells how it stands now, and that this was told. To be run in the subject's turn. */
  async tell(subject: SubjectText, did: Did, requestId: string): Promise<void> {
    const { takedowns, enrollments, call, blobs } = this.#parts
    const cid = blobOf(subject, did)
    if (cid !== undefined) await blobs.place(did, cid)
    else if ((await enrollments.member(did)) !== undefined) {
      const takendown = (await takedowns.find(subject)) !== undefined
      const path = subject === did ? undefined : subject.slice(`at://${did}/`.length)
      await toldBy(call(did, requestId, { kind: 'status', path, takendown, nowMs: Date.now() }))
    }
    await takedowns.clearNews(subject)
  }

  /** What an earlier try, or process, did not come to. */
  async tellDue(requestId: string, stopped: () => boolean): Promise<void> {
    const { takedowns, log } = this.#parts
    for (let after = ''; ;) {
      const page = await takedowns.news(after, atOnceMax)
      for (const { subject, did } of page) {
        if (stopped()) return
        after = subject
        try {
          await this.inTurn(subject, async () => {
            // Whoever had the turn before may have told it.
            if (await takedowns.hasNews(subject)) await this.tell(subject, did, requestId)
          })
        } catch (error) {
          // One broken repo must not keep the news of others.
          log.error('takedown.untold', { subject, requestId, error })
        }
      }
      if (page.length < atOnceMax) return
    }
  }
}

/** Of a repo that is being left nobody is told anything more. */
async function toldBy(call: Promise<object>): Promise<void> {
  try {
    await call
  } catch (error) {
    if (!(error instanceof XrpcError && error.error === 'RepoNotFound')) throw error
  }
}

const atOnceMax = 100
