import { heapStats } from 'bun:jsc'

/** Bytes of heap in use, after everything that could go has gone. */
export function heldBytes(): number {
  Bun.gc(true)
  const { heapSize, extraMemorySize } = heapStats()
  return heapSize + extraMemorySize
}
