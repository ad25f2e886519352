import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type LexiconDoc, parseLexiconDoc } from '@atproto/lexicon'
import { Schemas } from '../atproto/lexicon.ts'
import { danglingReferences } from '../atproto/lexicon-references.ts'
import { schemaDocs } from '../atproto/schemas.ts'
import { ConfigError } from '../config.ts'

/**
 * Every lexicon document that this service checks by: its own, and those in the operator's folder.
 * @param folder empty for none; read with its subfolders, files that end in `.json`
 * @throws ConfigError with one line for each file that is no good
 */
export function allLexicons(folder: string): LexiconDoc[] {
  if (folder === '') return schemaDocs
  const problems: string[] = []
  const docs = new Map(schemaDocs.map((doc) => [doc.id, doc]))
  for (const path of filesOf(folder, problems)) {
    try {
      const doc = readDocument(path)
      if (docs.has(doc.id)) throw new Error(`there is a lexicon ${doc.id} already`)
      docs.set(doc.id, doc)
    } catch (error) {
      problems.push(`${variable}: ${path}: ${messageOf(error)}`)
    }
  }
  const all = [...docs.values()]
  if (problems.length === 0) problems.push(...faultsOf(all))
  if (problems.length > 0) throw new ConfigError(problems)
  return all
}

const variable = 'STRATOS_LEXICON_DIR'
const filesMax = 1_000
const fileBytesMax = 1024 * 1024
const messageCharsMax = 500

function filesOf(folder: string, problems: string[]): string[] {
  try {
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    const found = names.filter((name) => name.endsWith('.json')).toSorted()
    if (found.length > filesMax) problems.push(`${variable} holds more than ${filesMax} lexicons`)
    return found.slice(0, filesMax).map((name) => join(folder, name))
  } catch (error) {
    problems.push(`${variable} cannot be read: ${messageOf(error)}; name a folder of lexicons`)
    return []
  }
}

function readDocument(path: string): LexiconDoc {
  const { size } = statSync(path)
  if (size > fileBytesMax) throw new Error(`it is larger than ${fileBytesMax} bytes`)
  return parseLexiconDoc(JSON.parse(readFileSync(path, 'utf8')))
}

/** What is wrong with the documents together. */
function faultsOf(docs: readonly LexiconDoc[]): string[] {
  const dangling = danglingReferences(docs).map(
    (ref) => `${variable}: nothing defines ${ref}; put its lexicon into the folder, too`,
  )
  if (dangling.length > 0) return dangling
  try {
    void new Schemas(docs)
    return []
  } catch (error) {
    return [`${variable}: ${messageOf(error)}`]
  }
}

function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replaceAll(/\s+/g, ' ').slice(0, messageCharsMax)
}
