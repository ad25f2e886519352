import { verify } from '../../src/cli/verify.ts'

export interface Checked {
  readonly code: number
  readonly lines: readonly string[]
  readonly err: string
  /** The names of the checks that failed. */
  readonly failed: readonly string[]
}

/** Runs `stratos verify` within this process. */
export async function runVerify(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  stdin: Iterable<Uint8Array> = [],
): Promise<Checked> {
  const lines: string[] = []
  let err = ''
  const code = await verify(args, {
    env: { STRATOS_ALLOW_PRIVATE_NETWORK: 'true', ...env },
    version: 'test',
    print: (text) => void lines.push(text),
    tell: (text) => void (err += `${text}\n`),
    stdin: async function* () {
      yield* stdin
    },
  })
  const failed = lines.flatMap((line) => /^FAILED +([^:]+):/.exec(line)?.[1] ?? [])
  return { code, lines, err, failed }
}
