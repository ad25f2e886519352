import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { S3Bucket } from '../../src/store/blob-s3-client.ts'
import { Child } from './child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { type Bucket, bucketName } from './s3rver.ts'
import { eventually } from './wait.ts'

/** Why the tests cannot run an OpenStack Swift, with S3 spoken in front of it. */
export function swiftLacks(): string | undefined {
  const programs = [...kinds, 'proxy'].map((kind) => `swift-${kind}-server`)
  const missing = [...programs, 'swift-ring-builder'].find((name) => Bun.which(name) === null)
  if (missing !== undefined) return `${missing} is not installed`
  return existsSync(sharedSettings) ? undefined : `${sharedSettings} is missing`
}

/** A whole Swift of one disk. It checks signatures, and has pages of 20 names. */
export async function startSwift(): Promise<Bucket> {
  const folder = mkdtempSync(join(tmpdir(), 'stratos-swift-'))
  const disk = join(folder, 'disks', 'one')
  mkdirSync(disk, { recursive: true })
  const children: Child[] = []
  for (const kind of kinds) {
    const port = await freePort()
    const builder = join(folder, `${kind}.builder`)
    await run(folder, [builder, 'create', '2', '1', '0'])
    await run(folder, [builder, 'add', `r1z1-127.0.0.1:${port}/one`, '1'])
    await run(folder, [builder, 'rebalance'])
    children.push(serve(folder, kind, storageText(folder, kind, port)))
  }
  const port = await freePort()
  children.push(serve(folder, 'proxy', proxyText(folder, port)))
  const endpoint = `http://127.0.0.1:${port}`
  const [accessKey, secretKey, region] = ['test:tester', 'testing', 'us-east-1']
  const keys = { access: accessKey, secret: secretKey }
  const settings = { bucket: bucketName, region, endpoint, keys, bucketIn: 'path' } as const
  using bucket = await S3Bucket.open(settings)
  const ask = new bucket.sdk.CreateBucketCommand({ Bucket: bucketName })
  const end = async (): Promise<void> => {
    for (const child of children) await child.kill()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await eventually('bucket of Swift', async () => {
      const dead = children.find(({ running }) => !running)
      if (dead !== undefined) throw new Error(`a part of Swift ended\n${dead.output}`)
      return await bucket
        .send('the bucket', async (client) => await client.send(ask))
        .catch(() => undefined)
    })
  } catch (error) {
    await end()
    throw error
  }
  return {
    name: bucketName,
    region,
    endpoint,
    accessKey,
    secretKey,
    [Symbol.asyncDispose]: end,
  }
}

const kinds = ['account', 'container', 'object'] as const
const sharedSettings = '/etc/swift/swift.conf'

async function run(folder: string, args: readonly string[]): Promise<void> {
  const child = new Child({ command: ['swift-ring-builder', ...args], cwd: folder })
  await child.exited
}

function serve(folder: string, kind: string, text: string): Child {
  const path = join(folder, `${kind}.conf`)
  writeFileSync(path, text)
  return new Child({ command: [`swift-${kind}-server`, path, '-v'], cwd: folder })
}

function storageText(folder: string, kind: string, port: number): string {
  return `${commonText(folder, port)}
devices = ${join(folder, 'disks')}
mount_check = false
[pipeline:main]
pipeline = ${kind}-server
[app:${kind}-server]
use = egg:swift#${kind}
`
}

function proxyText(folder: string, port: number): string {
  const plain = ['catch_errors', 'gatekeeper', 'listing_formats', 'bulk', 'copy', 'slo', 'dlo']
  const filters = plain.map((name) => `[filter:${name}]\nuse = egg:swift#${name}\n`).join('')
  return `${commonText(folder, port)}
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk s3api tempauth copy slo dlo proxy-server
${filters}[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_bucket_listing = 20
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 60
# One slow answer of the only disk must not shut it out.
error_suppression_limit = 1000
`
}

function commonText(folder: string, port: number): string {
  return `[DEFAULT]
user = ${userInfo().username}
bind_ip = 127.0.0.1
bind_port = ${port}
swift_dir = ${folder}
workers = 0
log_level = ERROR`
}
