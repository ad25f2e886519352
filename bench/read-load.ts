import { isFields } from '../test/kit/xrpc.ts'
import type { Plan } from './read-plan.ts'
import { type Reply, requestBytes, Wire } from './wire.ts'

/**
 * The load of `bench/read.ts`, in a process of its own: takes a plan on standard input, keeps its
 * clients busy with the requests of the plan and prints what it saw as JSON. Every answer must be
 * the one that was expected: the first of each request is read, the next ones must equal it.
 */
const plan: Plan = await Bun.stdin.json()
const { port } = plan
const requests = plan.requests.map(({ verb, path, body, expected }) => ({
  bytes: requestBytes({
    verb,
    path,
    port,
    bearer: plan.bearer,
    ...(body === null ? {} : { body }),
  }),
  expected,
  first: undefined as Buffer | undefined,
}))
const wires = await Promise.all(Array.from({ length: plan.clients }, () => Wire.open(port)))
let next = 0

await run(plan.seconds / 5)
const before = process.cpuUsage()
const { times, seconds } = await run(plan.seconds)
const spent = process.cpuUsage(before)
const share = (spent.user + spent.system) / 1_000_000 / seconds
process.stdout.write(JSON.stringify({ times, seconds, share }))
for (const wire of wires) wire.close()

async function run(forSeconds: number): Promise<{ times: number[]; seconds: number }> {
  // The parent reads the CPU time of the server when this line comes.
  process.stderr.write('begin\n')
  const times: number[] = []
  const start = performance.now()
  const end = start + forSeconds * 1000
  await Promise.all(
    wires.map(async (wire) => {
      for (let now = performance.now(); now < end;) {
        const request = requests[next++ % requests.length]
        if (request === undefined) throw new Error('a plan without requests')
        const reply = await wire.ask(request.bytes)
        if (request.first?.equals(reply.body) !== true) request.first = checked(reply, request)
        const answered = performance.now()
        times.push(answered - now)
        now = answered
      }
    }),
  )
  return { times, seconds: (performance.now() - start) / 1000 }
}

function checked(
  { status, body }: Reply,
  { expected, first }: { readonly expected: readonly string[]; readonly first: Buffer | undefined },
): Buffer {
  const text = body.toString('utf8')
  if (first !== undefined) throw new Error(`another answer than before: ${text.slice(0, 200)}`)
  const value: unknown = JSON.parse(text)
  const records: unknown = isFields(value) && 'records' in value ? value['records'] : [value]
  const uris = Array.isArray(records) ? records.map((record) => Object(record).uri) : []
  if (status === 200 && Bun.deepEquals(uris, expected)) return body
  throw new Error(`${status} ${text.slice(0, 200)}`)
}
