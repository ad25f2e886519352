import { parseArgs } from 'node:util'
import { UsageError } from './failures.ts'

/** What a command takes. */
export interface Syntax {
  /** As in the help, its name first. */
  readonly usage: string
  /** Whether a value follows an option. */
  readonly options?: Readonly<Record<string, 'value' | 'flag'>>
  /** How many arguments it takes. */
  readonly least: number
  readonly most: number
}

export interface Arguments {
  /** A flag has the value ''. */
  readonly options: ReadonlyMap<string, string>
  readonly values: readonly string[]
}

/**
 * @param syntax.secrets where a secret is taken from, for those who name it in an argument
 * @throws UsageError
 */
export function parseArguments(
  args: readonly string[],
  syntax: Syntax & { readonly secrets: string },
): Arguments {
  const known = syntax.options ?? {}
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      Object.entries(known).map(([name, kind]) => {
        return [name, { type: kind === 'flag' ? 'boolean' : 'string' } as const]
      }),
    ),
    // Refused below, in words that never repeat what might be a password.
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const options = new Map<string, string>()
  const values: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') values.push(token.value)
    if (token.kind !== 'option') continue
    const { name, value } = token
    const kind = new Map(Object.entries(known)).get(name)
    if (kind === undefined || !token.rawName.startsWith('--'))
      throw unknownOption(name, syntax.secrets)
    if (options.has(name)) throw new UsageError(`--${name} is given twice`)
    if (kind === 'value' && (value === undefined || value === '' || value.startsWith('--'))) {
      throw new UsageError(`--${name} needs a value`)
    }
    if (kind === 'flag' && value !== undefined) throw new UsageError(`--${name} takes no value`)
    options.set(name, value ?? '')
  }
  if (values.length < syntax.least || values.length > syntax.most) {
    throw new UsageError(`it is called as: stratos ${syntax.usage}`)
  }
  return { options, values }
}

function unknownOption(name: string, secrets: string): UsageError {
  return new UsageError(
    /pass|secret|token/i.test(name) ? secrets : 'one of the options is not known here',
  )
}
