import { describe, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { NoList, readList } from '../../src/service/list-text.ts'
import { failureOf } from '../kit/wait.ts'

const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:web:bob.test')
const signal = new AbortController().signal

describe('no list is', () => {
  test.each([
    ['an empty text', '', 'it is empty'],
    ['blank lines', '\n \r\n\t\n', 'it is empty'],
    ['a page', '<!doctype html>\n<p>Sign in', 'line 1 is no DID'],
    ['an error', '{"error": "SECRET"}', 'line 1 is no DID'],
    ['a DID and a handle', `${alice}\n\nSECRET.test\n`, 'line 3 is no DID'],
    ['a text cut off within a DID', `${alice}\ndid:pl`, 'line 2 is no DID'],
    ['a DID with a comment behind it', `# a\n${alice} # SECRET`, 'line 2 is no DID'],
    ['two DIDs on a line', `${alice},${bob}`, 'line 1 is no DID'],
    ['a DID in quotes', `"${alice}"`, 'line 1 is no DID'],
    ['a DID URL', `${alice}#atproto`, 'line 1 is no DID'],
    ['bytes that are no text', new Uint8Array([0xff, 0xfe, 0x00]), 'line 1 is no DID'],
    ['lines that end as on old machines', `${alice}\r${bob}`, 'line 1 is no DID'],
  ])('%s', async (_, text, why) => {
    const failure = await failureOf(read(text))
    expect(failure).toBeInstanceOf(NoList)
    expect(String(failure)).toContain(why)
    expect(String(failure)).not.toContain('SECRET')
  })

  test('a text with too many DIDs', async () => {
    const lines = Array.from({ length: 1_000_001 }, (_, index) => `did:web:p${index}`)
    expect(String(await failureOf(read(lines.join('\n'))))).toContain('more than 1000000')
  })
})

describe('a list is', () => {
  test.each([
    ['one DID', alice, [alice]],
    ['a DID on each line', `${alice}\n${bob}\n`, [alice, bob]],
    ['lines that end as on Windows', `# a\r\n\r\n${alice}\r\n${bob}\r\n`, [alice, bob]],
    ['lines with space around them', `  ${alice}\t\n  # a`, [alice]],
    ['a text with a byte order mark', `\uFEFF${alice}`, [alice]],
    ['a DID twice, which counts once', `${alice}\n${alice}`, [alice]],
    ['a comment, of nobody', '# nobody yet', []],
  ])('%s', async (_, text, dids) => {
    expect([...(await read(text))]).toEqual(dids)
  })

  test('as long as half a million lines, read beside other work', async () => {
    const lines = Array.from({ length: 500_000 }, (_, index) => `did:web:p${index}`)
    let turns = 0
    const timer = setInterval(() => void (turns += 1), 0)
    expect((await read(lines.join('\n'))).size).toBe(lines.length)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5)
  })
})

test('who stops does not wait for the end of a long list', async () => {
  const stopping = new AbortController()
  const text = Buffer.from(`${alice}\n`.repeat(10_000))
  const reading = readList(text, stopping.signal)
  stopping.abort()
  expect(await failureOf(reading)).toMatchObject({ name: 'AbortError' })
})

function read(text: string | Uint8Array) {
  return readList(typeof text === 'string' ? Buffer.from(text) : text, signal)
}
