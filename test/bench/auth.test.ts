import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the auth bench measures each credential, by the call and over HTTP', async () => {
  const line = 'auth.ts --calls 20 --requests 100 --rounds 1'
  const { code, output, leftovers } = await runBench(line)
  expect(output.match(/ us a call /g)).toHaveLength(6)
  expect(output.match(/ us of CPU a request/g)).toHaveLength(4)
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
