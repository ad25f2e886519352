import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the stream bench measures latency, bursts, backfill, sockets and everyone', async () => {
  const line =
    'stream.ts --seconds 0.2 --readers 3 --writes 64 --events 1200 --sockets 150 --people 20 --shards 1'
  const { code, output, leftovers } = await runBench(line)
  expect(output).toMatch(/^create to event, owner +p50 \d+.* ms {3}p99 at most 10: /m)
  expect(output).toMatch(/^create to event, AppView +p50 \d+.* ms {3}p99 at most 10: /m)
  expect(output).toMatch(/^64 commits to 3 readers +\d+ deliveries\/s /m)
  expect(output).toMatch(/^the same from a cursor +\d+ deliveries\/s /m)
  expect(output.match(/^1200 events (from cursor 0|once more) +\d+ events\/s /gm)).toHaveLength(2)
  expect(output).toMatch(/^150 open sockets +\d+ MB resident, /m)
  expect(output).toMatch(/^40 writes of 20 actors +\d+ writes\/s, /m)
  expect(output).toMatch(/^behind the last write +\d+ events, \d+ ms$/m)
  expect(output.match(/^verified \d+ repos with all of \d+ records, /gm)).toHaveLength(3)
  expect(output).toEndWith('every event was there once, in its order\n')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
