import type { Did } from '../atproto/syntax.ts'
import type { Change } from './actor-change.ts'

/** Changes of one actor, each on the one before. */
export interface ActorChanges {
  readonly did: Did
  readonly changes: readonly Change[]
}

/** JSON in which bytes are base64. */
export function changesText({ did, changes }: ActorChanges): string {
  return JSON.stringify({
    did,
    changes: changes.map((change) => ({
      ...change,
      commit: base64(change.commit),
      ops: change.ops.map((op) =>
        op.put === undefined ? op : { ...op, put: { ...op.put, content: base64(op.put.content) } },
      ),
    })),
  })
}

/** From texts of `changesText`, joined: only for what this program wrote itself. */
export function changesOf(text: string): ActorChanges[] {
  const written: Written[] = JSON.parse(text)
  return written.map(({ did, changes }) => ({
    did,
    changes: changes.map((change) => ({
      ...change,
      commit: bytes(change.commit),
      ops: change.ops.map(({ put, ...op }) =>
        put === undefined ? op : { ...op, put: { ...put, content: bytes(put.content) } },
      ),
    })),
  }))
}

/** One array of several texts of `changesText`. */
export function joined(texts: readonly string[]): string {
  return `[${texts.join(',')}]`
}

type Op = Change['ops'][number]
type Put = NonNullable<Op['put']>
interface Written {
  readonly did: Did
  readonly changes: readonly (Omit<Change, 'commit' | 'ops'> & {
    readonly commit: string
    readonly ops: readonly (Omit<Op, 'put'> & {
      readonly put?: Omit<Put, 'content'> & { readonly content: string }
    })[]
  })[]
}

function base64(content: Uint8Array): string {
  return Buffer.from(content.buffer, content.byteOffset, content.length).toString('base64')
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'))
}
