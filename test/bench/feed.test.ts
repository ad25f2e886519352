import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the feed bench measures every method, at times that are set', async () => {
  const line = 'feed.ts --posts 6000 --people 30 --rate 20 --seconds 0.2'
  const { code, output, leftovers } = await runBench(line)
  for (const name of ['getTimeline, of one quiet', 'getTimeline, of all 50', 'getAuthorFeed']) {
    expect(output).toMatch(new RegExp(`^${name}.* p99 \\d+\\.\\d+ ms +wanted p99 15: `, 'm'))
  }
  expect(output).toMatch(/^getPostThread, of 1000 answers +\d+\/s +p50 /m)
  expect(output).toEndWith('every answer was the one that was to be given\n')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
