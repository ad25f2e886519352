import type { ByteRange } from '../store/blob-storage.ts'

/**
 * What a request wants of `size` bytes: undefined is all of them. So it is where the header is in no
 * form of one range of bytes, and where it counts for another version only.
 * @see RFC 9110, sections 13.1.5 and 14.2
 */
export function rangeOf(
  headers: Headers,
  { size, etag }: { readonly size: number; readonly etag: string },
): ByteRange | 'unsatisfiable' | undefined {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/i.exec(headers.get('range') ?? '') ?? []
  if (first === '' && last === '') return undefined
  const version = headers.get('if-range')
  if (version !== null && version !== etag) return undefined
  if (first === '') {
    const count = Math.min(Number(last), size)
    return count === 0 ? 'unsatisfiable' : { start: size - count, end: size }
  }
  const start = Number(first)
  if (last !== '' && Number(last) < start) return undefined
  if (start >= size) return 'unsatisfiable'
  return { start, end: last === '' ? size : Math.min(Number(last) + 1, size) }
}
