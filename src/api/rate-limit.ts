import { XrpcError } from '../atproto/errors.ts'

/** Where a caller stands with a limit. */
export interface RateLimit {
  readonly limit: number
  readonly windowMs: number
  readonly remaining: number
  /** Until the whole limit is there again. */
  readonly resetMs: number
}

/** As servers of AT Protocol give them: the reset in seconds since the epoch. */
export function rateLimitHeaders({ limit, windowMs, remaining, resetMs }: RateLimit) {
  return {
    'ratelimit-limit': String(limit),
    'ratelimit-remaining': String(remaining),
    'ratelimit-reset': String(Math.ceil((Date.now() + resetMs) / 1000)),
    'ratelimit-policy': `${limit};w=${Math.ceil(windowMs / 1000)}`,
  }
}

export function rateLimitExceeded(
  message: string,
  state: RateLimit & { readonly waitMs: number },
): XrpcError {
  const seconds = Math.max(1, Math.ceil(state.waitMs / 1000))
  return new XrpcError(429, 'RateLimitExceeded', message, {
    headers: { 'retry-after': String(seconds), ...rateLimitHeaders(state) },
  })
}
