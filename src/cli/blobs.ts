import { existsSync } from 'node:fs'
import { bucketFaults } from '../config/blob-variables.ts'
import { variables } from '../config/variables.ts'
import { S3Failed } from '../store/blob-s3-client.ts'
import type { MovableBlobs } from '../store/blob-storage.ts'
import { type BlobSettings, openBlobStorage } from '../store/open-blobs.ts'
import { parseArguments } from './arguments.ts'
import { BlobMove, type Moved } from './blob-move.ts'
import { CommandFailed, UsageError } from './failures.ts'
import { type Env, setting } from './setting.ts'
import type { Surroundings } from './surroundings.ts'
import { plain } from './table.ts'

/**
 * `stratos blobs`: moves the bytes of blobs to where they are kept from now on. No service need run.
 * @returns the exit code: 0, 1 when not all could be moved, 2 when it was called wrongly
 */
export async function blobs(args: readonly string[], around: Surroundings): Promise<0 | 1 | 2> {
  const [name, ...rest] = args
  if (name === undefined || name === 'help' || args.includes('--help')) {
    around.print(help)
    return 0
  }
  try {
    if (name !== 'migrate') throw new UsageError('there is no such command')
    return await migrate(rest, around)
  } catch (error) {
    if (!(error instanceof CommandFailed) && !(error instanceof UsageError)) throw error
    around.tell(`stratos blobs: ${plain(error.message)}`)
    if (error instanceof CommandFailed) return 1
    around.tell('"stratos blobs help" tells how to call it')
    return 2
  }
}

type Storage = BlobSettings['blobStorage']

async function migrate(args: readonly string[], around: Surroundings): Promise<0 | 1> {
  const { options } = parseArguments(args, {
    usage: 'blobs migrate --from local --to s3',
    options: { from: 'value', to: 'value', prune: 'flag' },
    least: 0,
    most: 0,
    secrets: 'keys are taken from the environment and nowhere else',
  })
  const [from, to] = [storageIn(options, 'from'), storageIn(options, 'to')]
  if (from === to) throw new UsageError('--from and --to must differ')
  const { blobStorage } = variables
  // What the source lacks may be what was uploaded since.
  if (options.has('prune') && setting(blobStorage, around.env) === to) {
    throw new UsageError(`--prune is not for the storage that ${blobStorage.name} names`)
  }
  try {
    const move = new BlobMove({
      from: await open(from, around.env),
      to: await open(to, around.env),
      tell: (text) => around.tell(plain(text)),
    })
    const moved = await move.run(options.has('prune') ? 'remove' : 'report')
    around.print(summary(moved, to, options.has('prune')))
    return moved.failed > 0 ? 1 : 0
  } catch (error) {
    if (!(error instanceof S3Failed)) throw error
    const message = `${error.message}. Run this again to go on where it stopped`
    throw new CommandFailed(message, { cause: error })
  }
}

function storageIn(options: ReadonlyMap<string, string>, name: 'from' | 'to'): Storage {
  const text = options.get(name)
  if (text === 'local' || text === 's3') return text
  throw new UsageError(`--${name} must be local or s3`)
}

async function open(blobStorage: Storage, env: Env): Promise<MovableBlobs> {
  const settings = {
    blobStorage,
    dataDir: setting(variables.dataDir, env),
    s3Bucket: setting(variables.s3Bucket, env),
    s3Region: setting(variables.s3Region, env),
    s3Endpoint: setting(variables.s3Endpoint, env),
    s3AccessKey: setting(variables.s3AccessKey, env),
    s3SecretKey: setting(variables.s3SecretKey, env),
    s3PathStyle: setting(variables.s3PathStyle, env),
  }
  const [fault] = bucketFaults(settings)
  if (fault !== undefined) {
    throw new UsageError(`${variables[fault.at].name} must be set to reach the bucket`)
  }
  if (blobStorage === 'local' && !existsSync(settings.dataDir)) {
    throw new UsageError(`${variables.dataDir.name} names no folder: ${settings.dataDir}`)
  }
  return await openBlobStorage(settings)
}

function summary(moved: Moved, to: Storage, isPruned: boolean): string {
  const lines = [
    `copied and read back: ${moved.copied} blobs, ${inMegabytes(moved.copiedBytes)}`,
    `there already:        ${moved.present}`,
    `not copied:           ${moved.failed}`,
    `unfinished uploads:   ${moved.unfinished}, which are left where they are`,
    `unknown files:        ${moved.strangers}, which are left where they are`,
    `at the target alone:  ${moved.extra}${isPruned ? ', which were removed' : ''}`,
    '',
  ]
  if (moved.failed > 0) {
    lines.push('What was not copied is named above. The service must stay where it is until then.')
    return lines.join('\n')
  }
  lines.push(
    'Next: stop the service and run this once more with --prune, unless it was stopped all along;',
    `then set ${variables.blobStorage.name}=${to} and start it. Nothing was removed at the source.`,
  )
  return lines.join('\n')
}

function inMegabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

const help = `Moves the bytes of blobs between the data folder and a bucket of S3

  stratos blobs migrate --from local --to s3 [--prune]
  stratos blobs migrate --from s3 --to local [--prune]

Copies permanent, temporary and quarantined blobs. Each is hashed while it is copied, and what was
copied is read back and hashed again; a blob that is not what its CID says is named and not copied.
What the target has already is left out, so that it may be interrupted at any time and run again.
Nothing is removed at the source. --prune removes at the target what the source does not have, as
somebody deleted it since the last run; it is refused where STRATOS_BLOB_STORAGE is the target.

It takes the variables of the service: STRATOS_DATA_DIR and STRATOS_S3_*. The service may run
meanwhile; then stop it, run this once more, set STRATOS_BLOB_STORAGE, and start it again.

Ends with 0, with 1 when something was not copied, and with 2 when it was called wrongly.`
