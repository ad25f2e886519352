import { readFileSync } from 'node:fs'

/**
 * How many files and sockets this process may have open at once; undefined where the system does
 * not tell.
 */
export function descriptorLimit(limitsFile = '/proc/self/limits'): number | undefined {
  let text: string
  try {
    text = readFileSync(limitsFile, 'utf8')
  } catch (error) {
    // Only Linux has this file.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  const soft = /^Max open files\s+(\d+)/m.exec(text)?.[1]
  return soft === undefined ? undefined : Number(soft)
}

/** As many of `wanted` handles as the limit leaves room for, beside sockets and the rest. */
export function handlesWithin(
  limit: number | undefined,
  handles: { readonly wanted: number; readonly filesEach: number; readonly reserved: number },
): number {
  if (limit === undefined) return handles.wanted
  const room = Math.floor((limit - handles.reserved) / handles.filesEach)
  return Math.max(1, Math.min(handles.wanted, room))
}
