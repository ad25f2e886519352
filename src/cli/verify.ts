import { didKeyAlgorithm, KeyError } from '../atproto/keys.ts'
import { isValidMstKey } from '../atproto/mst-key.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { variables } from '../config/variables.ts'
import { type FileSource, SourceError } from '../lib/byte-source.ts'
import { createGuardedFetch } from '../remote/fetch.ts'
import { Identities } from '../remote/identity.ts'
import { parseArguments } from './arguments.ts'
import { InputFailed, UsageError } from './failures.ts'
import { setting } from './setting.ts'
import { plain } from './table.ts'
import { CheckFailed, Verdicts } from './verdicts.ts'
import { attestedKey, type ChainParts } from './verify-chain.ts'
import { type InputName, type InputSurroundings, openInput } from './verify-input.ts'
import {
  checkCommit,
  checkContents,
  checkHashes,
  checkRecord,
  checkSignature,
  checkTree,
  isSignedBy,
  type Lack,
  readContents,
} from './verify-repo.ts'

/**
 * `stratos verify`: whether a CAR is what was signed for an account, for those who need not believe
 * who handed it over.
 * @returns the exit code: 0 when all held, 1 when a check failed, 2 when nothing could be checked
 */
export async function verify(
  args: readonly string[],
  around: InputSurroundings,
): Promise<0 | 1 | 2> {
  if (args.length === 0 || args[0] === 'help' || args.includes('--help')) {
    around.print(help)
    return 0
  }
  try {
    const asked = readArguments(args)
    using source = await openInput(asked.input, around)
    return await check(source, asked, around)
  } catch (error) {
    const isUsage = error instanceof UsageError
    if (!isUsage && !(error instanceof InputFailed) && !(error instanceof SourceError)) throw error
    around.tell(`stratos verify: ${plain(error.message)}`)
    if (isUsage) around.tell('"stratos verify help" tells how to call it')
    return 2
  }
}

interface Asked {
  readonly input: InputName
  readonly did: Did | undefined
  readonly key: string | undefined
  readonly service: Did | undefined
  readonly record: string | undefined
  readonly lack: Lack
}

async function check(source: FileSource, asked: Asked, around: InputSurroundings): Promise<0 | 1> {
  const { did, service, lack, record: key } = asked
  const verdicts = new Verdicts((text) => around.print(text))
  const parts = chainParts(verdicts, around)
  await verdicts.inTurn(async () => {
    const index = checkHashes(source, verdicts, (text) => around.tell(text))
    const commit = checkCommit(index, verdicts)
    const root = commit.data
    // Whoever signed it, what is in it is told as well.
    await verdicts.inTurn(async () => {
      if (did !== undefined) checkAccount(commit.did, did, verdicts)
      const isSigner = (one: string) => isSignedBy(index, one)
      const chain = { did: commit.did, service, isSigner }
      checkSignature(index, asked.key ?? (await attestedKey(chain, parts)), verdicts)
    })
    if (key !== undefined) return checkRecord(index, { root, key }, { lack, verdicts })
    const found = readContents(index, root)
    await verdicts.inTurn(() => checkTree(found, lack, verdicts))
    return checkContents(found, lack, verdicts)
  })
  const { failed, count } = verdicts
  around.print(failed === 0 ? `all ${count} checks held` : `${failed} of ${count} checks failed`)
  return failed === 0 ? 0 : 1
}

function checkAccount(found: Did, expected: Did, verdicts: Verdicts): void {
  if (found !== expected) throw new CheckFailed('account', `expected ${expected}, not ${found}`)
  verdicts.held('account', `it is ${expected}`)
}

function chainParts(verdicts: Verdicts, { env }: InputSurroundings): ChainParts {
  const fetch = createGuardedFetch({
    allowPrivateNetwork: setting(variables.privateNetwork, env),
    timeoutMs: 10_000,
    responseBytesMax: answerBytesMax,
  })
  const plcUrl = setting(variables.plcUrl, env)
  return { identities: new Identities({ plcUrl, fetch, now: Date.now }), fetch, verdicts }
}

/** A hundred enrollment records are far smaller. */
const answerBytesMax = 2 * 1024 * 1024

/** @throws UsageError */
function readArguments(args: readonly string[]): Asked {
  const { options, values } = parseArguments(args, {
    usage: 'verify <car file or URL>, with options; see "stratos verify help"',
    options: {
      did: 'value',
      key: 'value',
      service: 'value',
      record: 'value',
      partial: 'flag',
      authorization: 'value',
    },
    secrets: 'credentials are taken from the file of --authorization and nowhere else',
    least: 1,
    most: 1,
  })
  const [name = ''] = values
  const [key, record] = [options.get('key'), options.get('record')]
  const service = didIn(options, 'service')
  if (key !== undefined) checkKeyForm(key)
  if (key !== undefined && service !== undefined) {
    throw new UsageError('with --key no service is asked: leave out --service')
  }
  if (record !== undefined && !isValidMstKey(record)) {
    throw new UsageError('--record must be collection/rkey, as in zone.stratos.feed.post/3jzf')
  }
  return {
    input: { name, authorization: options.get('authorization') },
    did: didIn(options, 'did'),
    key,
    service,
    record,
    lack: options.has('partial') ? 'parts' : 'nothing',
  }
}

function didIn(options: ReadonlyMap<string, string>, name: string): Did | undefined {
  const text = options.get(name)
  if (text === undefined || isDid(text)) return text
  throw new UsageError(`--${name} must be a DID`)
}

function checkKeyForm(key: string): void {
  try {
    didKeyAlgorithm(key)
  } catch (error) {
    if (!(error instanceof KeyError)) throw error
    throw new UsageError(`--key: ${error.message}`, { cause: error })
  }
}

const help = `Whether an exported repo, or the proof of a record, is what was signed for an account

  stratos verify <car> [options]

<car> is a file, - for standard input, or the URL of one. Each line says what was checked and
whether it held: the hash of every block, the commit, who signed it, the form of the tree, and
which contents are there. No record is shown.

Who must have signed:

  --key <did:key>         this key; nobody is asked
  (otherwise)             the key that a service has attested to the account. Followed are the DID
                          document, the enrollment record on the PDS, the service's own document
                          and its attestation
  --service <did>         of several services, this one
  --did <did>             the commit must be of this account

What must be there:

  (otherwise)             the whole tree and the content of every record
  --partial               less will do, as in exports since a rev, or without what was taken down
  --record <coll>/<rkey>  a proof, as getRecord gives it: says whether the record is in the tree

  --authorization <file>  for a URL: the file holds the value of that header, as in Bearer ...
                          It is not sent over http beyond this machine.

${variables.plcUrl.name} and ${variables.privateNetwork.name} mean what they mean to the service.

Ends with 0 when all held, with 1 when a check failed, and with 2 when it was called wrongly or
the CAR could not be had.`
