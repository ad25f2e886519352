import { describe, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'

import { ConfigError, describeVariables, readConfig } from '../src/config.ts'
import { badValues } from './config-values.ts'

const names = describeVariables().map(({ name }) => name)
const bucketKeys = ['STRATOS_S3_ACCESS_KEY', 'STRATOS_S3_SECRET_KEY']
const secrets = [
  'STRATOS_ADMIN_PASSWORD',
  'STRATOS_SYNC_TOKEN',
  'STRATOS_SIGNING_KEY_HEX',
  ...bucketKeys,
]

test('every variable has bad values here', () => {
  expect(Object.keys(badValues).toSorted()).toEqual(names.toSorted())
})

describe('a bad value is one line with name, fault and example, of', () => {
  test.each(names)('%s', (name) => {
    for (const value of badValues[name] ?? []) {
      const [line = '', ...rest] = problemsOf({ [name]: value })
      expect(rest).toEqual([])
      expect(line).toStartWith(`${name} `)
      expect(line).not.toContain('\n')
      const [fault = '', example = ''] = line.slice(name.length + 1).split('; for example ')
      expect(fault.length).toBeGreaterThan(10)
      expect(example).toStartWith(`${name}=`)
      expect(example.length).toBeGreaterThan(name.length + 1)
    }
  })

  test.each(names.filter((name) => !secrets.includes(name)))(
    '%s, whose example is good',
    (name) => {
      const [line = ''] = problemsOf({ [name]: badValues[name]?.[0] ?? '' })
      const [, example = ''] = line.split(`; for example ${name}=`)
      const beside: Record<string, Record<string, string>> = {
        STRATOS_HOST: { STRATOS_PUBLIC_URL: 'https://stratos.example.com' },
        STRATOS_AUTO_ENROLL_DOMAINS: { STRATOS_ALLOWED_DOMAINS: example },
        STRATOS_OAUTH_CLIENT_ID: { STRATOS_PUBLIC_URL: 'https://stratos.example.com' },
        STRATOS_BLOB_STORAGE: { STRATOS_S3_BUCKET: 'blobs', STRATOS_S3_REGION: 'eu-central-1' },
        STRATOS_ALLOWED_APPVIEWS: { STRATOS_ALLOWED_DOMAINS: 'cycling,climbing' },
      }
      expect(problemsOf({ ...beside[name], [name]: example })).toEqual([])
    },
  )
})

test('the example of the sync token is a command, and what it prints is good', () => {
  const name = 'STRATOS_SYNC_TOKEN'
  const [line = ''] = problemsOf({ [name]: 'short' })
  expect(line).toEndWith(`; for example ${name}=$(openssl rand -hex 32)`)
  expect(problemsOf({ [name]: randomBytes(32).toString('hex') })).toEqual([])
})

describe('all that is wrong is said at once', () => {
  test('of each variable by itself', () => {
    const env = Object.fromEntries(names.map((name) => [name, badValues[name]?.[0] ?? '']))
    // Each name once, and nothing that is wrong only because another one is.
    expect(problemsOf(env).map((line) => line.split(' ')[0])).toEqual(names)
  })

  test('of variables together, too', () => {
    const env = {
      STRATOS_PORT: 'x',
      STRATOS_HOST: '0.0.0.0',
      STRATOS_DEV_MODE: 'true',
      STRATOS_AUTO_ENROLL_DOMAINS: 'b',
      STRATOS_NO_SUCH_THING: '1',
    }
    const found = problemsOf(env).map((line) => line.split(' ')[0] ?? '')
    expect(found.toSorted()).toEqual([
      'STRATOS_AUTO_ENROLL_DOMAINS',
      'STRATOS_DEV_MODE',
      'STRATOS_NO_SUCH_THING',
      'STRATOS_PORT',
      'STRATOS_PUBLIC_URL',
    ])
  })
})

describe('the start is refused', () => {
  const url = 'https://stratos.example.com'
  test.each<[string, Record<string, string>, string]>([
    ['beyond loopback without a public URL', { STRATOS_HOST: '0.0.0.0' }, 'STRATOS_PUBLIC_URL'],
    ['beyond loopback by IPv6', { STRATOS_HOST: '::' }, 'STRATOS_PUBLIC_URL'],
    [
      'with a public URL in plain http',
      { STRATOS_PUBLIC_URL: 'http://stratos.example.com' },
      'STRATOS_PUBLIC_URL',
    ],
    [
      'with a host that begins like loopback, in plain http',
      { STRATOS_PUBLIC_URL: 'http://localhost.example.com' },
      'STRATOS_PUBLIC_URL',
    ],
    [
      'in development mode with a public host',
      { STRATOS_DEV_MODE: 'true', STRATOS_HOST: '0.0.0.0', STRATOS_PUBLIC_URL: url },
      'STRATOS_DEV_MODE',
    ],
    [
      'in development mode with a public host and a loopback URL',
      {
        STRATOS_DEV_MODE: 'true',
        STRATOS_HOST: '192.0.2.1',
        STRATOS_PUBLIC_URL: 'http://localhost:3100',
      },
      'STRATOS_DEV_MODE',
    ],
    [
      'in development mode with a public URL',
      { STRATOS_DEV_MODE: '1', STRATOS_PUBLIC_URL: url },
      'STRATOS_DEV_MODE',
    ],
    [
      'with client metadata elsewhere and no https URL',
      { STRATOS_OAUTH_CLIENT_ID: 'https://www.example.com/client.json' },
      'STRATOS_OAUTH_CLIENT_ID',
    ],
    [
      'with client metadata at an address that this service does not answer',
      { STRATOS_PUBLIC_URL: url, STRATOS_OAUTH_CLIENT_ID: `${url}/client.json` },
      'STRATOS_OAUTH_CLIENT_ID',
    ],
    [
      'with new people in a boundary that is none',
      { STRATOS_ALLOWED_DOMAINS: 'a', STRATOS_AUTO_ENROLL_DOMAINS: 'a,b' },
      'STRATOS_AUTO_ENROLL_DOMAINS',
    ],
    [
      'with a boundary that grows too long',
      { STRATOS_SERVICE_DID: `did:web:${'x'.repeat(240)}`, STRATOS_ALLOWED_DOMAINS: 'abcdefgh' },
      'STRATOS_ALLOWED_DOMAINS',
    ],
    [
      'at a loopback address to which no PDS returns',
      { STRATOS_PUBLIC_URL: 'http://[::1]:3100' },
      'STRATOS_PUBLIC_URL',
    ],
    [
      'with more boundaries for new people than one person may have',
      { STRATOS_ALLOWED_DOMAINS: Array.from({ length: 51 }, (_, at) => `b${at}`).join() },
      'STRATOS_AUTO_ENROLL_DOMAINS',
    ],
    ['by a name that is no variable', { STRATOS_DEVMODE: 'true' }, 'STRATOS_DEVMODE'],
    ['by an empty one, too', { STRATOS_COLLECTION: '' }, 'STRATOS_COLLECTION'],
  ])('%s', (_, env, name) => {
    const [line = '', ...rest] = problemsOf(env)
    expect(rest).toEqual([])
    expect(line).toStartWith(`${name} `)
  })
})

test('a secret stands in no problem', () => {
  const marks = ['s3cr3tt3xt', '5ec12e7']
  const env = {
    STRATOS_ADMIN_PASSWORD: 's3cr3tt3xt',
    STRATOS_SIGNING_KEY_HEX: '5ec12e7'.repeat(8),
    STRATOS_PUBLIC_URL: 'https://admin:s3cr3tt3xt@stratos.example.com',
    STRATOS_PLC_URL: 'https://s3cr3tt3xt@plc.example.com/',
    STRATOS_HANDLE_RESOLVER_URL: 'https://:s3cr3tt3xt@api.example.com',
    STRATOS_ALLOWED_PDS_ENDPOINTS: 'https://a.example,https://b:s3cr3tt3xt@c.example',
    STRATOS_ALLOW_LIST_URI: 'https://list:s3cr3tt3xt@lists.example.com/people.txt',
    STRATOS_VALKEY_URL: 'http://:s3cr3tt3xt@127.0.0.1:6379',
    STRATOS_INDEX_POSTGRES_URL: 'postgres://stratos:s3cr3tt3xt%@127.0.0.1/stratos',
    STRATOS_INDEX_FIREHOSES: 'https://s3cr3tt3xt@relay.example.com',
    STRATOS_SECRET: 's3cr3tt3xt',
  }
  const error = errorOf(env)
  expect(error.problems).toHaveLength(Object.keys(env).length)
  for (const mark of marks) {
    expect(error.problems.join('\n')).not.toContain(mark)
    expect(Bun.inspect(error)).not.toContain(mark)
  }
})

test.each([
  { STRATOS_ALLOW_LIST_URI: 'lists.example.com/people.txt?token=s3cr3tt3xt' },
  { STRATOS_ALLOW_LIST_URI: 'ftp://lists.example.com/s3cr3tt3xt/people.txt' },
  { STRATOS_VALKEY_URL: 'http://127.0.0.1:6379?password=s3cr3tt3xt' },
])('nor does one that stands after a wrong scheme: %o', (env) => {
  expect(problemsOf(env)).toHaveLength(1)
  expect(problemsOf(env).join()).not.toContain('s3cr3tt3xt')
})

test('with nothing set the service is on loopback, for development, and says so', () => {
  const config = readConfig({ HOME: '/', PATH: '/bin' })
  expect(config).toMatchObject({
    host: '127.0.0.1',
    port: 3100,
    publicUrl: 'http://localhost:3100',
    serviceDid: 'did:web:localhost%3A3100',
    enrollmentMode: 'allowlist',
    devMode: false,
    privateNetwork: false,
    synchronous: 'full',
    adminPassword: '',
  })
  expect(config.warnings).toHaveLength(1)
  expect(config.warnings[0]).toContain('development identity')
  expect(Object.isFrozen(config)).toBe(true)
})

test('with a public URL and a proxy there is nothing to warn of', () => {
  const env = { STRATOS_PUBLIC_URL: 'https://stratos.example.com/' }
  const { warnings, ...config } = readConfig(env)
  expect(config).toMatchObject({
    publicUrl: 'https://stratos.example.com',
    serviceDid: 'did:web:stratos.example.com',
  })
  expect(warnings).toHaveLength(1)
  expect(warnings[0]).toStartWith('STRATOS_TRUSTED_PROXIES is not set')
  const behind = readConfig({ ...env, STRATOS_TRUSTED_PROXIES: '10.0.0.0/8, fd00::/8' })
  expect(behind).toMatchObject({ warnings: [], trustedProxies: ['10.0.0.0/8', 'fd00::/8'] })
})

test.each([
  ['true', true],
  ['1', true],
  ['false', false],
  ['0', false],
  [' false ', false],
])('%j is %p', (text, value) => {
  expect(readConfig({ STRATOS_DEV_MODE: text }).devMode).toBe(value)
  expect(readConfig({ STRATOS_ALLOW_PRIVATE_NETWORK: text }).privateNetwork).toBe(value)
})

test('a list in plain http, at any port, is for private networks', () => {
  const list = { STRATOS_ALLOW_LIST_URI: 'http://10.0.0.1:8080/people.txt' }
  expect(problemsOf({ ...list, STRATOS_ALLOW_PRIVATE_NETWORK: 'true' })).toEqual([])
  expect(problemsOf(list)).toHaveLength(1)
})

test('a service is followed in plain http on loopback, and beyond it in private networks', () => {
  const at = (origin: string) => ({ STRATOS_INDEX_SERVICES: `did:web:s.example=${origin}` })
  for (const origin of ['https://s.example', 'http://127.0.0.1:3100', 'http://[::1]:3100']) {
    expect(problemsOf(at(origin))).toEqual([])
  }
  const bare = at('http://10.0.0.1:3100')
  expect(problemsOf({ ...bare, STRATOS_ALLOW_PRIVATE_NETWORK: 'true' })).toEqual([])
  const [problem = '', ...rest] = problemsOf(bare)
  expect(rest).toEqual([])
  expect(problem).toStartWith('STRATOS_INDEX_SERVICES names http://10.0.0.1:3100, which must be')
})

test('development mode is for every name of loopback', () => {
  for (const host of ['127.0.0.1', '127.8.9.10', 'localhost', '::1', '[::1]']) {
    expect(problemsOf({ STRATOS_DEV_MODE: 'true', STRATOS_HOST: host })).toEqual([])
  }
  for (const url of ['http://localhost:3100', 'http://127.0.0.1', 'https://localhost']) {
    expect(problemsOf({ STRATOS_DEV_MODE: 'true', STRATOS_PUBLIC_URL: url })).toEqual([])
  }
})

test('new people get all boundaries where nothing is said, and none where nothing is named', () => {
  const env = { STRATOS_ALLOWED_DOMAINS: 'a, b', STRATOS_PUBLIC_URL: 'https://s.example' }
  const all = ['did:web:s.example/a', 'did:web:s.example/b']
  expect(readConfig(env)).toMatchObject({ boundaries: all, newBoundaries: all })
  for (const empty of ['', ' ']) {
    const config = readConfig({ ...env, STRATOS_AUTO_ENROLL_DOMAINS: empty })
    expect(config).toMatchObject({ boundaries: all, newBoundaries: [] })
  }
  const one = readConfig({ ...env, STRATOS_AUTO_ENROLL_DOMAINS: 'b' })
  expect(one.newBoundaries).toEqual(['did:web:s.example/b'])
})

test('an AppView reads all boundaries where none are named, else only those', () => {
  const env = { STRATOS_ALLOWED_DOMAINS: 'a,b,c', STRATOS_PUBLIC_URL: 'https://s.example' }
  const grants = (STRATOS_ALLOWED_APPVIEWS: string) =>
    Object.fromEntries<unknown>(readConfig({ ...env, STRATOS_ALLOWED_APPVIEWS }).appViews)
  expect([...readConfig(env).appViews]).toEqual([])
  expect(grants('')).toEqual({})
  expect(grants('did:web:x.example, did:web:y.example = a | c,did:web:z.example=a|b|c')).toEqual({
    'did:web:x.example': 'all',
    'did:web:y.example': ['did:web:s.example/a', 'did:web:s.example/c'],
    'did:web:z.example': ['did:web:s.example/a', 'did:web:s.example/b', 'did:web:s.example/c'],
  })
})

describe('a bucket', () => {
  const complete = {
    STRATOS_BLOB_STORAGE: 's3',
    STRATOS_S3_BUCKET: 'blobs',
    STRATOS_S3_ENDPOINT: 'https://s3.example.com',
    STRATOS_S3_ACCESS_KEY: 'ACCESS-KEY',
    STRATOS_S3_SECRET_KEY: 'SECRET-KEY',
  }

  const without = (name: string): Record<string, string> =>
    Object.fromEntries(Object.entries(complete).filter(([key]) => key !== name))

  test.each<[string, Record<string, string>, string | undefined]>([
    ['without a name', without('STRATOS_S3_BUCKET'), 'STRATOS_S3_BUCKET'],
    ['without a secret key', without('STRATOS_S3_SECRET_KEY'), bucketKeys[1]],
    ['without an access key', without('STRATOS_S3_ACCESS_KEY'), bucketKeys[0]],
    ['of nowhere', without('STRATOS_S3_ENDPOINT'), 'STRATOS_S3_REGION'],
    ['with half of the keys, not in use', { STRATOS_S3_ACCESS_KEY: 'ACCESS-KEY' }, bucketKeys[1]],
  ])('%s stops the start', (_name, env, name) => {
    const [line = '', ...rest] = problemsOf(env)
    expect(rest).toEqual([])
    expect(line).toStartWith(`${name} must be set`)
    expect(line).not.toMatch(/ACCESS-KEY|SECRET-KEY/)
  })

  test('may be set while blobs are still in the data folder', () => {
    expect(problemsOf({ ...complete, STRATOS_BLOB_STORAGE: 'local' })).toEqual([])
  })

  test('over http beyond this machine is warned of', () => {
    const warned = (endpoint: string) =>
      readConfig({ ...complete, STRATOS_S3_ENDPOINT: endpoint }).warnings.filter((line) =>
        line.startsWith('STRATOS_S3_ENDPOINT '),
      )
    expect(warned('http://minio.test:9000')).toHaveLength(1)
    expect(warned('http://127.0.0.1:9000')).toEqual([])
    expect(warned('https://s3.example.com')).toEqual([])
  })
})

const readme = new URL('../README.md', import.meta.url)

test.skipIf(!existsSync(readme))('the README’s table names every variable and its default', () => {
  const rows = readFileSync(readme, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
  const shown = rows.map(([, name, fallback]) => [name, fallback])
  for (const { name, fallback } of describeVariables()) {
    expect(shown).toContainEqual([`\`${name}\``, fallback])
  }
  const listed = shown.map(([name]) => name ?? '').filter((name) => /^`(STRATOS_|LOG_)/.test(name))
  expect(listed.filter((name) => !names.includes(name.replaceAll('`', '')))).toEqual([])
})

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

function errorOf(env: Record<string, string>): ConfigError {
  try {
    readConfig(env)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('the configuration was taken')
}
