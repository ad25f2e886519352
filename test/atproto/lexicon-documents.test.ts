import { describe, expect, test } from 'bun:test'
import { type LexiconDoc, Lexicons, parseLexiconDoc } from '@atproto/lexicon'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { folder } from '../../src/lib/embed.macro.ts'
import { folder as embedded } from '../../src/lib/embed.macro.ts' with { type: 'macro' }

const root = new URL('../../', import.meta.url)
const paths = [...new Bun.Glob('lexicons/**/*').scanSync(root.pathname)].toSorted()
const docs = new Map<string, LexiconDoc>(schemaDocs.map((doc) => [doc.id, doc]))

describe('our lexicons', () => {
  test.each(paths)('%s is a lexicon document under the name of its NSID', async (path) => {
    const doc = parseLexiconDoc(await Bun.file(new URL(path, root)).json())
    expect(`lexicons/${doc.id.replaceAll('.', '/')}.json`).toBe(path)
    expect(docs.has(doc.id)).toBe(true)
  })

  test('no reference of any embedded document leads nowhere', () => {
    const lexicons = new Lexicons(structuredClone(schemaDocs))
    const references = [...lexicons].flatMap(referencesIn)
    expect(references.length).toBeGreaterThan(20)
    expect(references.filter((ref) => lexicons.getDef(ref) === undefined)).toEqual([])
  })

  test('a method under our name takes and gives what its original does', () => {
    const originals = [...docs.keys()].filter((nsid) =>
      /^com[.]atproto[.](repo|sync)[.]/.test(nsid),
    )
    const methods = originals.filter((nsid) => !/[.](defs|strongRef)$/.test(nsid))
    expect(methods).toHaveLength(15)
    // The original is about whoever calls; ours names a repo.
    const alike = methods.filter((nsid) => !nsid.endsWith('.listMissingBlobs'))
    expect(alike).toHaveLength(14)
    for (const nsid of alike) {
      const twin = nsid.replace('com.atproto', 'zone.stratos')
      expect([twin, shapeOf(twin)]).toEqual([twin, shapeOf(nsid)])
    }
  })

  test('every error has a name of its own in its method', async () => {
    for (const [nsid, { defs }] of docs) {
      const { main } = defs
      const errors = main !== undefined && 'errors' in main ? (main.errors ?? []) : []
      const names = errors.map(({ name }) => name)
      expect([nsid, [...new Set(names)]]).toEqual([nsid, names])
    }
  })
})

describe('what is embedded', () => {
  test('published documents shrink to what is referred to, without texts for people', () => {
    expect([...docs.keys()]).not.toContain('app.bsky.actor.defs')
    expect(Object.keys(docs.get('app.bsky.embed.record')?.defs ?? {})).toEqual(['main'])
    expect(JSON.stringify(schemaDocs).length).toBeLessThan(80_000)
    expect(JSON.stringify(schemaDocs)).not.toContain('"description":"')
  })

  test('a property that is named description stays', () => {
    expect(docs.get('app.bsky.embed.external')?.defs['external']).toMatchObject({
      properties: { description: { type: 'string' } },
    })
  })

  test('the package of published lexicons is no part of the program', async () => {
    const entrypoint = new URL('src/atproto/schemas.ts', root).pathname
    const { outputs } = await Bun.build({ entrypoints: [entrypoint], target: 'bun' })
    const program = await outputs[0]?.text()
    expect(program).toContain('zone.stratos.feed.post')
    expect(program?.length).toBeLessThan(130_000)
  })

  test('a folder comes as its files in sorted order, and no subfolders', () => {
    const repo = embedded('lexicons/zone/stratos/repo')
    expect(Object.keys(repo)).toEqual([
      'applyWrites.json',
      'createRecord.json',
      'deleteRecord.json',
      'describeRepo.json',
      'getRecord.json',
      'hydrateRecord.json',
      'hydrateRecords.json',
      'importRepo.json',
      'listMissingBlobs.json',
      'listRecords.json',
      'putRecord.json',
      'uploadBlob.json',
    ])
    expect(JSON.parse(repo['getRecord.json'] ?? '')).toMatchObject({
      id: 'zone.stratos.repo.getRecord',
    })
    expect(folder('lexicons/zone/stratos/repo/')).toEqual(repo)
    expect(folder('lexicons/zone')).toEqual({})
  })

  test('a folder that is absent fails where it is read', () => {
    expect(() => folder('lexicons/nowhere')).toThrow('ENOENT')
  })
})

function referencesIn(part: unknown): string[] {
  if (typeof part !== 'object' || part === null) return []
  const { type, ref, refs }: { type?: unknown; ref?: unknown; refs?: unknown } = part
  if (type === 'ref' && typeof ref === 'string') return [ref]
  if (type === 'union' && Array.isArray(refs)) return refs.map(String)
  return Object.values(part).flatMap(referencesIn)
}

/** Everything but the errors, and with references within the document alike. */
function shapeOf(nsid: string): unknown {
  const text = JSON.stringify(docs.get(nsid)?.defs, (key, value: unknown) =>
    key === 'errors' ? undefined : value,
  )
  return JSON.parse(text.replaceAll('"lex:', '"').replaceAll(`"${nsid}#`, '"#'))
}
