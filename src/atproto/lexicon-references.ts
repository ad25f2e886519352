import type { LexiconDoc } from '@atproto/lexicon'

/** References of some documents that lead to no definition in any of them, as `{id}#{name}`. */
export function danglingReferences(docs: readonly LexiconDoc[]): string[] {
  const defined = new Set(
    docs.flatMap(({ id, defs }) => Object.keys(defs).map((name) => `${id}#${name}`)),
  )
  const wanted = docs.flatMap(({ id, defs }) => referencesIn(defs).map((ref) => absolute(ref, id)))
  return [...new Set(wanted)].filter((ref) => !defined.has(ref))
}

function referencesIn(definition: unknown): string[] {
  if (typeof definition !== 'object' || definition === null) return []
  const { type, ref, refs }: { type?: unknown; ref?: unknown; refs?: unknown } = definition
  if (type === 'ref' && typeof ref === 'string') return [ref]
  if (type === 'union' && Array.isArray(refs)) return refs.map(String)
  return Object.values(definition).flatMap(referencesIn)
}

function absolute(ref: string, id: string): string {
  const bare = ref.replace(/^lex:/, '')
  if (bare.startsWith('#')) return `${id}${bare}`
  return bare.includes('#') ? bare : `${bare}#main`
}
