import { invalidRequest } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { WriteAction, WriteRate } from '../service/write-rate.ts'
import { rateLimitExceeded, rateLimitHeaders } from './rate-limit.ts'

/**
 * Counts what an enrolled author attempts, whether it is then refused or not: else garbage would
 * be free.
 * @returns headers of the answer
 * @throws XrpcError 429 RateLimitExceeded; 400 for a call that costs more than the whole limit
 */
export function checkWriteRate(
  writes: WriteRate,
  author: Did,
  actions: readonly WriteAction[],
): Readonly<Record<string, string>> {
  const { limit, windowMs, unit } = writes.rules
  const attempt = writes.take(author, actions)
  switch (attempt.kind) {
    case 'taken':
      return rateLimitHeaders({ ...attempt, limit, windowMs })
    case 'refused':
      throw rateLimitExceeded('you write too much at once', { ...attempt, limit, windowMs })
    case 'too-large':
      throw invalidRequest(
        `these writes count as ${attempt.cost} ${unit}, and at most ${limit} are taken at once`,
      )
    default:
      return unreachable(attempt)
  }
}
