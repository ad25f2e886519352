import { P256PublicKey, parseDidKey } from '@atcute/crypto'
import { verifyRecord } from '@atcute/repo'
import { readCarWithRoot, type RecordCidClaim, verifyProofs, verifyRecords } from '@atproto/repo'
import { CID } from 'multiformats/cid'
import { parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import { failureOf } from './wait.ts'

/** What somebody claims of a record: where it stands, and its CID, null for none. */
export interface Claim {
  readonly did: string
  readonly collection: string
  readonly rkey: string
  readonly cid: string | null
}

export interface Proven {
  /** Undefined of a record that is proven to be absent. */
  readonly record: unknown
  /** Of commit, path and record. */
  readonly blocks: number
  readonly root: string
}

/**
 * Reads a proof as clients do, with two readers that are not ours. Both must come to the same, and
 * to the opposite of every other claim about that key.
 * @throws when the proof does not prove the claim
 */
export async function readProof(
  car: Uint8Array,
  claim: Claim,
  signingKey: string,
): Promise<Proven> {
  const { root, blocks } = await readCarWithRoot(car)
  const cid = claim.cid === null ? null : CID.parse(claim.cid)
  await expectVerdict('verified', { car, claim, cid, signingKey })
  await expectVerdict('unverified', { car, claim, cid: root, signingKey })
  if (cid !== null) await expectVerdict('unverified', { car, claim, cid: null, signingKey })
  const records = await verifyRecords(car, claim.did, signingKey)
  if (records.length > (cid === null ? 0 : 1)) throw new Error('it has records of others')
  const record = plain(await recordIn(car, claim, signingKey))
  if (!Bun.deepEquals(record, plain(records[0]?.record))) throw new Error('two records are read')
  return { record, blocks: blocks.size, root: root.toString() }
}

async function expectVerdict(
  verdict: 'verified' | 'unverified',
  on: {
    readonly car: Uint8Array
    readonly claim: Claim
    readonly cid: RecordCidClaim['cid']
    readonly signingKey: string
  },
): Promise<void> {
  const { car, claim, cid, signingKey } = on
  const { did, collection, rkey } = claim
  const one = { collection: parseNsid(collection), rkey: parseRkey(rkey), cid }
  const verdicts = await verifyProofs(car, [one], did, signingKey)
  if (verdicts[verdict].length !== 1) throw new Error(`${rkey} is not ${verdict}`)
}

async function recordIn(car: Uint8Array, claim: Claim, signingKey: string): Promise<unknown> {
  const publicKey = await P256PublicKey.importRaw(parseDidKey(signingKey).publicKeyBytes)
  const { did, collection, rkey } = claim
  if (!isPlcOrWeb(did)) throw new Error(`${did} is of no kind that accounts have`)
  const found = verifyRecord({ did, collection, rkey, publicKey, carBytes: car })
  if (claim.cid === null) {
    const failure = String(await failureOf(found))
    if (!failure.includes('could not find record')) throw new Error(failure)
    return undefined
  }
  const { cid, record } = await found
  if (cid !== claim.cid) throw new Error(`it is ${cid}`)
  return record
}

/** As JSON has it. */
function plain(record: unknown): unknown {
  if (record === undefined) return undefined
  const text = JSON.stringify(record, (_, value: unknown) =>
    value instanceof Uint8Array ? { $bytes: value.toBase64({ omitPadding: true }) } : value,
  )
  return JSON.parse(text)
}

function isPlcOrWeb(did: string): did is `did:plc:${string}` | `did:web:${string}` {
  return /^did:(?:plc|web):./.test(did)
}
