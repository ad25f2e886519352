import { collection, post } from '../service/posts.ts'

/** Where the record of a key stands in a tree. */
export function pathOf(rkey: string): string {
  return `${collection}/${rkey}`
}

/** Plain posts by their paths, in the boundary a, whose keys are in order. */
export function foreignPosts(count: number, over: Readonly<Record<string, unknown>> = {}) {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => {
      return [pathOf(keyOf(index)), post({ text: `post ${index}`, ...over })] as const
    }),
  )
}

export function keyOf(index: number): string {
  return `key-${String(index).padStart(6, '0')}`
}
