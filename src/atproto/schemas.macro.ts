import { readdirSync, readFileSync } from 'node:fs'
import { schemas as published } from '@atproto/api'
import { parseLexiconDoc, type LexiconDoc } from '@atproto/lexicon'

/**
 * The lexicons of this project, the published ones named in `extra`, and every definition that
 * these refer to, but nothing else of the published documents: half a megabyte stays out
 * of the program. Runs while Bun reads or bundles the importing file, so that the package with
 * all published lexicons is no dependency of the running program.
 */
export function lexiconDocs(extra: readonly string[]): LexiconDoc[] {
  const own = readOwn()
  const docs = new Map([...published, ...own].map((doc) => [doc.id, doc]))
  const kept = new Map<string, Definitions>()
  const wanted = [...own.map((doc) => doc.id), ...extra].flatMap((id) =>
    Object.keys(definitionsOf(docs, id)).map((name) => `${id}#${name}`),
  )
  for (let uri = wanted.pop(); uri !== undefined; uri = wanted.pop()) {
    const [id = '', name = 'main'] = uri.split('#')
    const definitions = kept.get(id) ?? {}
    if (Object.hasOwn(definitions, name)) continue
    const definition = definitionsOf(docs, id)[name]
    if (definition === undefined) throw new Error(`no lexicon defines ${uri}`)
    definitions[name] = withoutDescriptions(definition)
    kept.set(id, definitions)
    wanted.push(...referencesIn(definition).map((ref) => absolute(ref, id)))
  }
  return [...kept]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([id, defs]) => parseLexiconDoc({ lexicon: 1, id, defs }))
}

type Definitions = Record<string, unknown>

const folder = new URL('../../lexicons/', import.meta.url)

function readOwn(): LexiconDoc[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  return paths
    .filter((path) => path.endsWith('.json'))
    .map((path) => {
      const doc = parseLexiconDoc(JSON.parse(readFileSync(new URL(path, folder), 'utf8')))
      if (path.replaceAll('\\', '/') !== `${doc.id.replaceAll('.', '/')}.json`) {
        throw new Error(`lexicons/${path} holds ${doc.id}`)
      }
      return doc
    })
}

function definitionsOf(docs: ReadonlyMap<string, LexiconDoc>, id: string): Definitions {
  const doc = docs.get(id)
  if (doc === undefined) throw new Error(`no lexicon ${id}`)
  return doc.defs
}

/** Drops texts for people. A property that is itself named `description` has no text there. */
function withoutDescriptions(definition: unknown): unknown {
  return JSON.parse(
    JSON.stringify(definition, (key, value: unknown) =>
      key === 'description' && typeof value === 'string' ? undefined : value,
    ),
  )
}

function referencesIn(definition: unknown): string[] {
  if (typeof definition !== 'object' || definition === null) return []
  const { type, ref, refs }: { type?: unknown; ref?: unknown; refs?: unknown } = definition
  if (type === 'ref' && typeof ref === 'string') return [ref]
  if (type === 'union' && Array.isArray(refs)) return refs.map(String)
  return Object.values(definition).flatMap(referencesIn)
}

/** The published documents come with references that are already absolute, as `lex:` URIs. */
function absolute(ref: string, id: string): string {
  return ref.startsWith('#') ? `${id}${ref}` : ref.replace(/^lex:/, '')
}
