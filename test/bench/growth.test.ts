import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the growth bench measures every size and every number of people', async () => {
  const { code, output, leftovers } = await runBench(
    'growth.ts --writes 4 --rounds 1 --large 1000 --people 10 --shards 1',
  )
  expect(output.match(/^\d+ records, .* CPU s per 1000 /gm)).toHaveLength(6)
  expect(output.match(/^\d+ people, .* CPU s per 1000$/gm)).toHaveLength(2)
  // Two repos of each size, and what was written.
  expect(output).toMatch(/verified \d+ repos with all of 2\d{3} records/)
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
