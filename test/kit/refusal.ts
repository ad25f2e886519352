import { expect } from 'bun:test'
import type { SeededStratos } from './seeded.ts'
import type { Answer } from './xrpc.ts'

/** Status and error name. */
export type Refusal = readonly [status: number, error: string]

/** The answer is this refusal, says why, and says nothing else. */
export function expectRefusal(answer: Answer, [status, error]: Refusal): void {
  expect(answer).toMatchObject({ status, body: { error } })
  expect(Object.keys(answer.body).toSorted()).toEqual(['error', 'message'])
  expect(answer.body['message']).toBeString()
  expect(answer.headers.get('cache-control')).toBe('no-store')
  expect(answer.headers.get('www-authenticate') !== null).toBe(status === 401)
}

/** The same, and no repo of the service is other than before. */
export async function expectNoChange(
  stratos: SeededStratos,
  refusal: Refusal,
  ask: () => Promise<Answer>,
): Promise<Answer> {
  const before = await stratos.snapshot()
  const answer = await ask()
  expectRefusal(answer, refusal)
  expect(await stratos.snapshot()).toBe(before)
  return answer
}
