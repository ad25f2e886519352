import { expect, test } from 'bun:test'
import { runBench } from './run.ts'

test('the repo bench compares with other implementations and measures them', async () => {
  const { code, output } = await runBench('repo.ts --large 100 --milliseconds 1')
  expect(output.match(/^ {2}100 records( +[\d.]+( \(x[\d.]+\))?){3}$/gm)).toHaveLength(3)
  expect(output).toContain('all roots, bytes and signatures agree')
  expect(code).toBe(0)
}, 60_000)
