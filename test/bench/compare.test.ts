import { afterAll, expect, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readBaseline } from '../../bench/kit/baseline.ts'
import { projectFolder } from '../kit/seeded.ts'
import { runBench } from './run.ts'

const git = Bun.which('git')
const hasCommits =
  git !== null &&
  Bun.spawnSync([git, 'rev-parse', 'HEAD'], { cwd: projectFolder, stderr: 'ignore' }).success
if (!hasCommits) process.stderr.write('skipped: this is no git repository, nothing to compare\n')
const folder = await mkdtemp(join(tmpdir(), 'stratos-baseline-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

test.skipIf(!hasCommits)(
  'two commits are measured in turns, and the second one’s figures can be kept',
  async () => {
    const path = join(folder, 'baseline.json')
    const { code, output, leftovers } = await runBench(
      `compare.ts HEAD HEAD --load one --seconds 0.1 --rounds 1 --shards 1 --accept --baseline ${path}`,
    )
    expect(output.match(/^1 client in sequence .* writes\/s /gm)).toHaveLength(2)
    expect(output.match(/^1 client in sequence .*x \([\d.]+ to [\d.]+\)$/gm)).toHaveLength(3)
    const kept = await readBaseline(path)
    expect(kept).toMatchObject({ synchronous: 'full', rounds: 1, machine: { bun: Bun.version } })
    expect(kept?.loads.map(({ name }) => name)).toEqual(['1 client in sequence'])
    expect(code).toBe(0)
    expect(leftovers).toEqual([])
  },
  60_000,
)

test('a comparison needs two commits that there are', async () => {
  expect((await runBench('compare.ts HEAD')).code).toBe(1)
  const { code, leftovers } = await runBench('compare.ts no-such-commit HEAD')
  expect(code).toBe(1)
  expect(leftovers).toEqual([])
})
