import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the bench of what is visible measures from a post to a timeline', async () => {
  const { code, output, leftovers } = await runBench('visible.ts --posts 5 --people 3 --pace 10')
  expect(output).toMatch(/^create to visible in a timeline .* p99 .* wanted p99 250: /m)
  expect(output).toEndWith('each of 5 posts was there, in a timeline of somebody else\n')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
