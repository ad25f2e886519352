import type { Call } from './xrpc.ts'

export const importRepo = 'zone.stratos.repo.importRepo'
export const carType = 'application/vnd.ipld.car'

/** A call with a CAR as its body. */
export function withCar(car: Bun.BodyInit, { headers, ...call }: Call = {}): Call {
  return { ...call, body: car, headers: { 'content-type': carType, ...headers } }
}
