import { expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { descriptorLimit, handlesWithin } from '../../src/lib/descriptors.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const handles = { wanted: 256, filesEach: 3, reserved: 256 }

test('the soft limit counts', () => {
  const path = join(folder, 'limits')
  writeFileSync(path, 'Limit  Soft  Hard  Units\nMax open files            700   4096   files\n')
  expect(descriptorLimit(path)).toBe(700)
})

test('without a limit, or with a word for none, nothing is reduced', () => {
  const path = join(folder, 'unlimited')
  writeFileSync(path, 'Max open files            unlimited   unlimited   files\n')
  expect(descriptorLimit(path)).toBeUndefined()
  expect(descriptorLimit(join(folder, 'absent'))).toBeUndefined()
  expect(handlesWithin(undefined, handles)).toBe(256)
})

test('handles are cut to what is left beside the rest, never to none', () => {
  expect(handlesWithin(100_000, handles)).toBe(256)
  expect(handlesWithin(700, handles)).toBe(148)
  expect(handlesWithin(64, handles)).toBe(1)
})
