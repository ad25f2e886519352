import { expect, test } from 'bun:test'
import { runSteps } from '../../src/lib/steps.ts'

test('steps are run to their end, which is the result', () => {
  let ran = 0
  function* steps() {
    for (; ran < 3; ran++) yield ran
    return 'end'
  }
  expect(runSteps(steps())).toBe('end')
  expect(ran).toBe(3)
})
