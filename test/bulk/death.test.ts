import { expect, test } from 'bun:test'
import { fileURLToPath } from 'node:url'
import { SeededStratos } from '../kit/seeded.ts'
import { within } from '../kit/wait.ts'
import { xrpcResponse } from '../kit/xrpc.ts'

const preload = fileURLToPath(new URL('mortal-threads.ts', import.meta.url))

test('when the thread of long jobs ends by itself the process ends, and says of which', async () => {
  await using stratos = await SeededStratos.start({
    people: { alice: ['a'] },
    around: ([bun = '', ...rest]) => [bun, '--preload', preload, ...rest],
  })
  const { did, bearer: authorization } = stratos.person('alice')
  const call = { params: { did }, authorization }
  const response = await xrpcResponse(stratos.url, 'zone.stratos.sync.getRepo', call)
  expect(response.status).toBe(200)
  await response.bytes()
  expect(await within(10_000, 'end of the process', stratos.terminate('SIGUSR2'))).toBe(70)
  expect(stratos.log).toMatch(/"event":"shard\.died","shard":"bulk"/)
})
