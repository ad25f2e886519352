import type { Did } from '../../src/atproto/syntax.ts'
import { drive } from './generator.ts'
import { seedPeople } from './people.ts'
import { settle } from './process.ts'
import { figuresOf, percentiles, print } from './report.ts'
import { type Build, Service } from './service.ts'
import type { Exporter } from './verify.ts'
import { creating } from './write-plans.ts'
import { stratosTarget } from './write-run.ts'

interface Importing {
  readonly did: Did
  readonly car: Blob
  readonly records: number
  /** Of the service that the boundaries in the CAR belong to. */
  readonly serviceDid: string
  readonly others: readonly Did[]
  readonly env: Readonly<Record<string, string>>
  readonly build: Build
}

/** A CAR is imported by a service of its own that was just started: by HTTP, from byte to answer. */
export async function takeImport(
  importing: Importing,
  { headersOf }: Pick<Exporter, 'headersOf'>,
  beside: (service: Service) => Promise<void> = async () => undefined,
): Promise<{ readonly recordsPerSecond: number }> {
  const { did, car, records, serviceDid, others, env, build } = importing
  await using service = await Service.prepare()
  await seedPeople({ dataDir: service.dataDir, did: serviceDid }, [did, ...others], build)
  await service.start({ ...env, STRATOS_SERVICE_DID: serviceDid }, build)
  await settle(service.pid)
  const busy = beside(service)
  const startedAt = performance.now()
  const response = await fetch(`${service.url}/xrpc/zone.stratos.repo.importRepo`, {
    method: 'POST',
    headers: { ...headersOf(did), 'content-type': 'application/vnd.ipld.car' },
    body: car,
  })
  const answer: unknown = await response.json()
  const recordsPerSecond = (records * 1000) / (performance.now() - startedAt)
  if (!Bun.deepEquals(answer, { imported: records, rewritten: 0 })) {
    throw new Error(`importRepo: ${response.status} ${JSON.stringify(answer)}`)
  }
  await busy
  return { recordsPerSecond }
}

/** Writes of others at a pace, for some seconds from now on. */
export function writesOf(
  { others, serviceDid }: Pick<Importing, 'others' | 'serviceDid'>,
  { seconds, perSecond }: { readonly seconds: number; readonly perSecond: number },
): (service: Service) => Promise<void> {
  return async (service) => {
    const { requests, clients } = creating(stratosTarget({ did: serviceDid }), others)
    const timing = { warmUpSeconds: 0, seconds, perSecond }
    const driven = await drive({ port: service.port, requests, clients, ...timing }, service.pid)
    figuresOf('writes', driven)
    print(`${'writes of others, beside an import'.padEnd(34)} ${percentiles(driven.times)}`)
  }
}
