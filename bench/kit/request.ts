import { unreachable } from '../../src/lib/assert.ts'
import { isFields } from '../../test/kit/xrpc.ts'
import { nowMs } from './listen-plan.ts'
import type { Expected, PlannedRequest } from './plan.ts'
import { type Reply, requestBytes } from './wire.ts'

/** The newest revision of each repo that one client was told: it must grow with every write. */
export class Revs {
  readonly #newest = new Map<string, string>()

  see(repo: string, rev: string): void {
    if (rev <= (this.#newest.get(repo) ?? '')) throw new Error(`the rev of ${repo} did not grow`)
    this.#newest.set(repo, rev)
  }
}

/** A request as bytes, or ready to become so, and the check of its answers. */
export class PreparedRequest {
  /** Good answers so far. */
  answered = 0
  readonly #request: PlannedRequest
  readonly #port: number
  /** Absent where something is filled in each time. */
  readonly #bytes: Buffer | undefined
  #first: Buffer | undefined
  #sent = 0

  constructor(request: PlannedRequest, port: number) {
    this.#request = request
    this.#port = port
    const texts = [...Object.values(request.headers), request.body ?? '']
    const isFixed = !texts.some((text) => /<word>|<count>|<now>/.test(text))
    if (isFixed) this.#bytes = requestBytes({ ...request, port })
  }

  bytes(word = ''): Buffer {
    if (this.#bytes !== undefined) return this.#bytes
    const { headers, body } = this.#request
    const count = String(this.#sent++)
    const now = String(nowMs())
    const filled = (text: string) =>
      text.replaceAll('<word>', word).replaceAll('<count>', count).replaceAll('<now>', now)
    return requestBytes({
      ...this.#request,
      port: this.#port,
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name, filled(value)]),
      ),
      body: body === null ? null : filled(body),
    })
  }

  /** @throws when it is not the answer that the plan expects */
  check({ status, body }: Reply, revs: Revs): void {
    const { expected } = this.#request
    const isFixed = expected.kind === 'records' || expected.kind === 'bytes'
    const same = isFixed && this.#first?.equals(body) === true
    if (status !== 200 || (!same && !this.#isExpected(expected, body, revs))) {
      throw new Error(`${this.#request.path}: ${status} ${body.toString('utf8').slice(0, 300)}`)
    }
    this.answered += 1
  }

  #isExpected(expected: Expected, body: Buffer, revs: Revs): boolean {
    if (expected.kind === 'text') return body.toString('utf8') === expected.text
    if (expected.kind === 'bytes') {
      this.#first ??= body
      return Bun.SHA256.hash(body, 'hex') === expected.sha256
    }
    const answer: unknown = JSON.parse(body.toString('utf8'))
    if (!isFields(answer)) return false
    switch (expected.kind) {
      case 'records': {
        if (this.#first !== undefined) return false
        this.#first = body
        const records: unknown = 'records' in answer ? answer['records'] : [answer]
        const uris = Array.isArray(records) ? records.map((record) => Object(record).uri) : []
        return Bun.deepEquals(uris, expected.uris)
      }
      case 'commit':
        return isCommit(answer, expected, revs)
      default:
        return unreachable(expected)
    }
  }
}

function isCommit(
  answer: Readonly<Record<string, unknown>>,
  expected: Expected & { readonly kind: 'commit' },
  revs: Revs,
): boolean {
  const { commit, results } = answer
  if (!isFields(commit) || !isCid(commit['cid'])) return false
  const { rev } = commit
  if (typeof rev !== 'string' || !tid.test(rev)) return false
  revs.see(expected.repo, rev)
  const { records } = expected
  if (records === 'none') return true
  const start = `at://${expected.repo}/${expected.collection}/`
  const isRecord = ({ uri, cid }: Readonly<Record<string, unknown>>) =>
    typeof uri === 'string' && uri.startsWith(start) && isCid(cid)
  if (records === 'one') return isRecord(answer)
  return Array.isArray(results) && results.length === records && results.every(isRecord)
}

function isCid(value: unknown): boolean {
  return typeof value === 'string' && /^bafyrei[a-z2-7]{52}$/.test(value)
}

const tid = /^[2-7a-z]{13}$/
