import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the sync bench measures exports, others beside them, imports and proofs', async () => {
  const line =
    'sync.ts --load export,others,import,proofs --large 300 --rounds 1 --seconds 0.1 --shards 1'
  const { code, output, leftovers } = await runBench(line)
  expect(output).toMatch(/^export of 0\.1 MB +\d+ MB\/s /m)
  expect(output.match(/^first record.* ms /gm)).toHaveLength(2)
  expect(output).toMatch(/^memory above idle +-?\d+ MB /m)
  expect(output.match(/^(writes|reads) of others, alone +p50 .* ms$/gm)).toHaveLength(2)
  expect(output.match(/^(writes|reads) of others, beside exports .* MB\/s; /gm)).toHaveLength(2)
  expect(output).toMatch(/^import of 300 records +\d+ records\/s /m)
  expect(output).toMatch(/^writes of others, beside an import +p50 /m)
  expect(output).toMatch(/^(proofs .* proofs\/s |no proofs: )/m)
  expect(output).toMatch(/verified 17 repos with all of 1\d{3} records/)
  expect(code).toBe(0)
  expect(leftovers).toEqual([])
}, 60_000)
