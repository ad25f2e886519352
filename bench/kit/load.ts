import type { Plan, Seen, Step } from './plan.ts'
import { PreparedRequest, Revs } from './request.ts'
import { Wire } from './wire.ts'

/**
 * The load of every bench over HTTP, in a process of its own: takes a plan on standard input, lets
 * its clients ask what they are to ask, and holds every answer against what is expected. It says
 * `begin` when it begins to measure and `end` when it is done, then what it saw, as lines.
 */
const plan: Plan = await Bun.stdin.json()
const requests = plan.requests.map((request) => new PreparedRequest(request, plan.port))
const clients = await Promise.all(
  plan.clients.map(async ({ steps, repeats }) => ({
    wire: await Wire.open(plan.port),
    steps,
    repeats,
    place: 0,
    revs: new Revs(),
  })),
)
type Client = (typeof clients)[number]
/** For a server that answers no more; longer than any bench takes. */
const overtimeMs = 120_000
const stepsMinutesMax = 20

let ranOut = false
if (plan.warmUpSeconds > 0) await run(plan.warmUpSeconds)
process.stdout.write('begin\n')
const before = process.cpuUsage()
const { times, seconds } = await run(plan.seconds)
const spent = process.cpuUsage(before)
process.stdout.write('end\n')
for (const { wire } of clients) wire.close()
const share = (spent.user + spent.system) / 1_000_000 / seconds
const answered = requests.map((request) => request.answered)
const seen: Seen = { times, seconds, share, answered, ranOut }
// A pipe takes a long report in pieces.
await new Promise((resolve) => process.stdout.write(`${JSON.stringify(seen)}\n`, resolve))
process.exit()

async function run(forSeconds: number | null): Promise<{ times: number[]; seconds: number }> {
  const longestMs = forSeconds === null ? stepsMinutesMax * 60_000 : forSeconds * 1000 + overtimeMs
  const alarm = setTimeout(() => {
    process.stderr.write(`the server did not answer all within ${longestMs / 1000} s\n`)
    process.exit(1)
  }, longestMs)
  const seenTimes: number[] = []
  const start = performance.now()
  const end = forSeconds === null ? Number.POSITIVE_INFINITY : start + forSeconds * 1000
  const { perSecond } = plan
  await Promise.all(
    clients.map((client, index) =>
      perSecond === null
        ? askInTurn(client, { end, times: seenTimes })
        : askWhenDue(client, {
            first: start + (index * 1000) / perSecond,
            everyMs: (clients.length * 1000) / perSecond,
            end,
            times: seenTimes,
          }),
    ),
  )
  clearTimeout(alarm)
  return { times: seenTimes, seconds: (performance.now() - start) / 1000 }
}

async function askInTurn(
  client: Client,
  { end, times: answerTimes }: { readonly end: number; readonly times: number[] },
): Promise<void> {
  for (let now = performance.now(); now < end;) {
    const step = nextStep(client, end)
    if (step === undefined) return
    await ask(client, step)
    const answered = performance.now()
    answerTimes.push(answered - now)
    now = answered
  }
}

/** Timers go by whole milliseconds, so up to one of these is in the times. */
async function askWhenDue(
  client: Client,
  pace: {
    readonly first: number
    readonly everyMs: number
    readonly end: number
    readonly times: number[]
  },
): Promise<void> {
  for (let due = pace.first; due < pace.end; due += pace.everyMs) {
    const early = due - performance.now()
    if (early > 0) await Bun.sleep(early)
    const step = nextStep(client, pace.end)
    if (step === undefined) return
    await ask(client, step)
    pace.times.push(performance.now() - due)
  }
}

/** With a time to keep, the first client that is done ends it for all: fewer would be less load. */
function nextStep(client: Client, end: number): Step | undefined {
  if (client.repeats) return client.steps[client.place++ % client.steps.length]
  const isTimed = end < Number.POSITIVE_INFINITY
  if (isTimed && ranOut) return undefined
  const step = client.steps[client.place++]
  ranOut ||= isTimed && step === undefined
  return step
}

async function ask({ wire, revs }: Client, [number, word]: Step): Promise<void> {
  const request = requests[number]
  if (request === undefined) throw new Error(`the plan has no request ${number}`)
  request.check(await wire.ask(request.bytes(word)), revs)
}
