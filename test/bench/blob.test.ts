import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the blob bench measures uploads, downloads and their memory', async () => {
  const line = 'blob.ts --small 0.01 --large 0.1 --clients 2 --seconds 0.1 --megabytes 1 --shards 1'
  const { code, output, leftovers } = await runBench(line)
  expect(output.match(/^upload of 0\.\d+ MB, [12] at once +\d+ MB\/s /gm)).toHaveLength(4)
  expect(output.match(/^download of 0\.\d+ MB, [12] at once +\d+ MB\/s /gm)).toHaveLength(4)
  expect(output.match(/^memory of \w+, [12] at once +-?\d+ MB above idle each /gm)).toHaveLength(4)
  expect(output).toEndWith('every blob had its bytes\n')
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
