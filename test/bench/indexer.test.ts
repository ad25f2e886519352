import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the index bench measures from frames to rows', async () => {
  const line = 'indexer.ts --posts 1500 --people 20'
  const { code, output, leftovers } = await runBench(line)
  expect(output).toMatch(/^frames to committed rows +\d+ posts\/s +wanted 8000: /m)
  expect(output).toMatch(/^decoding \d+ % of the time, \d+\.\d us a post; /m)
  expect(output).toEndWith('every post is there, in its boundaries, and every cursor\n')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
