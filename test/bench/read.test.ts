import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the read bench measures every load', async () => {
  const { code, output, leftovers } = await runBench('read.ts --seconds 0.1 --large 200 --shards 1')
  expect(output.match(/ reads\/s /g)).toHaveLength(5)
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
