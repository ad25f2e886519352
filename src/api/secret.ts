import { createHash, timingSafeEqual } from 'node:crypto'

/** Takes the same time wherever the two differ, and whatever their lengths. */
export function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(a), digest(b))
}
