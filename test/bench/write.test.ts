import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

const short = '--seconds 0.1 --people 3 --posts 2 --synchronous normal --shards 1'

test('the write bench measures every load and verifies the repos', async () => {
  const { code, output, leftovers } = await runBench(`write.ts ${short}`)
  expect(output).toContain('every answer was as expected')
  expect(output.match(/ writes\/s /g)).toHaveLength(12)
  expect(output).toMatch(/verified 67 repos with all of \d+ records, 8 of them by @atproto\/repo/)
  expect(output).toContain('verified 3 repos with all of 6 records, 3 of them by @atproto/repo')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)

test('a bench that is interrupted leaves nothing behind', async () => {
  const { code, leftovers } = await runBench('write.ts --load one', 'stratos.sqlite')
  expect(code).toBe(130)
  expect(leftovers).toEqual([])
}, 60_000)

test('a bench refuses what it does not know', async () => {
  expect((await runBench('write.ts --load nothing')).code).toBe(1)
  expect((await runBench('write.ts --seconds 1000')).code).toBe(1)
})
