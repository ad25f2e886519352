import { drive } from './generator.ts'
import { benchDid, seedPeople } from './people.ts'
import { figuresLine, figuresOf, print } from './report.ts'
import { type Build, Service } from './service.ts'
import { verifyRepos } from './verify.ts'
import { filling } from './write-plans.ts'
import { addWritten, stratosExporter, stratosTarget } from './write-run.ts'

const clients = 64

/** Some people with some small posts each, then what they take of memory and disk. */
export async function measureMemory(options: {
  readonly build: Build
  readonly people: number
  readonly posts: number
}): Promise<void> {
  const { build, people, posts } = options
  await using service = await Service.prepare()
  const dids = Array.from({ length: people }, (_, index) => benchDid(index))
  print(`\nmemory, synchronous=normal: ${people} people write ${posts} posts each`)
  await seedPeople(service, dids, build)
  await service.start(
    { STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_SQLITE_SYNCHRONOUS: 'normal' },
    build,
  )
  const emptyMb = service.residentMb()
  const emptyBytes = await service.diskBytes()
  const plan = filling(stratosTarget(service), dids, { count: posts, clients })
  const { port, pid } = service
  const driven = await drive(
    {
      port,
      requests: plan.requests,
      clients: plan.clients,
      warmUpSeconds: 0,
      seconds: null,
      perSecond: null,
    },
    pid,
  )
  print(figuresLine(figuresOf(`${posts} posts of each`, driven), 'writes'))
  const residentMb = service.residentMb()
  const count = people * posts
  const perPost = (bytes: number) => (bytes / count).toFixed(0)
  const bytes = await service.diskBytes()
  const written = new Map<(typeof dids)[number], number>()
  addWritten(written, { effects: plan.effects, answered: driven.answered })
  print(await verifyRepos(stratosExporter(service), written))
  await service.stop()
  const stoppedBytes = await service.diskBytes()
  print(
    `resident ${residentMb.toFixed(0)} MB (at the start ${emptyMb.toFixed(0)} MB); ` +
      `disk per post, all included: ${perPost(bytes)} bytes while it runs, ` +
      `${perPost(stoppedBytes)} when stopped; of that ${perPost(emptyBytes)} are the empty repos`,
  )
}
