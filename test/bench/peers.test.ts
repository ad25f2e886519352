import { expect, test } from 'bun:test'
import { hasPeers } from '../../bench/peers/install.ts'
import { runBench } from './run.ts'

const isInstalled = await hasPeers()
if (!isInstalled) {
  process.stderr.write('skipped: bench/peers is not installed, `bun bench/peers/main.ts` does it\n')
}

test.skipIf(!isInstalled)(
  'the peers bench measures both servers and gives ratios',
  async () => {
    const { code, output, leftovers } = await runBench(
      'peers/main.ts --seconds 0.2 --rounds 1 --actors 2',
    )
    expect(output.match(/^stratos .* writes\/s /gm)).toHaveLength(4)
    expect(output.match(/^pds .* writes\/s /gm)).toHaveLength(4)
    expect(output.match(/verified 2 repos/g)).toHaveLength(2)
    expect(output.match(/x \([\d.]+ to [\d.]+\) {3}at least \d+x/g)).toHaveLength(3)
    expect(code).toBe(0)
    expect(leftovers).toEqual([])
  },
  60_000,
)

test.skipIf(!isInstalled)(
  'the sync bench exports the same repo from both servers',
  async () => {
    const line = 'sync.ts --load peers --large 10 --small 200 --rounds 1'
    const { code, output, leftovers } = await runBench(line)
    expect(output).toMatch(/^export of 200 records .*x \([\d.]+ to [\d.]+\)$/m)
    expect(output).toContain('the PDS: verified 1 repos with all of 200 records')
    expect(code).toBe(0)
    expect(leftovers).toEqual([])
  },
  60_000,
)
