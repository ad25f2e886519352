import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the enroll bench measures joining and a service of many people', async () => {
  const { code, output, leftovers } = await runBench('enroll.ts --seconds 0.2 --people 20')
  expect(output.match(/^enroll, \d+ at once: [\d.]+\/s /gm)).toHaveLength(2)
  expect(output).toMatch(/all \d+ are enrolled/)
  expect(output.match(/^status of 20 people, /gm)).toHaveLength(4)
  expect(output).toMatch(/^20 people: start \d+ ms/m)
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
