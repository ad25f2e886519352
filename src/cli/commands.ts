import { fieldsIn, type Fields, flagIn, listIn, numberIn, textIn, textsIn } from './answers.ts'
import type { Arguments, Syntax } from './arguments.ts'
import type { AdminClient } from './client.ts'
import { CommandFailed, UsageError } from './failures.ts'
import type { Surroundings } from './surroundings.ts'
import { plain, table } from './table.ts'

export interface AdminCommand extends Syntax {
  /** For the help. */
  readonly text: string
  run(call: CommandCall): Promise<Outcome>
}

interface CommandCall extends Arguments {
  readonly client: AdminClient
  readonly around: Surroundings
}

interface Outcome {
  readonly json: object
  readonly text: () => string
}

const few = { least: 0, most: 0 } as const

/** In the order of the help. */
export const commands: ReadonlyMap<string, AdminCommand> = new Map(
  (
    [
      {
        usage: 'members [--boundary <boundary>]',
        text: 'who is enrolled, or is in one boundary',
        options: { boundary: 'value' },
        ...few,
        run: members,
      },
      { usage: 'boundaries', text: 'the boundaries, and how many people', ...few, run: boundaries },
      {
        usage: 'add <who> <boundary>',
        text: 'adds somebody to a boundary',
        least: 2,
        most: 2,
        run: (call) => changeOne('addBoundary', call),
      },
      {
        usage: 'remove <who> <boundary>',
        text: 'takes somebody out of a boundary',
        least: 2,
        most: 2,
        run: (call) => changeOne('removeBoundary', call),
      },
      {
        usage: 'set <who> <boundary...> | --none',
        text: 'replaces the boundaries that somebody is in',
        options: { none: 'flag' },
        least: 1,
        most: 51,
        run: setAll,
      },
      {
        usage: 'outbox [<who>]',
        text: 'whose PDS still lacks something, or refused it',
        least: 0,
        most: 1,
        run: outbox,
      },
      {
        usage: 'takedown <who, at-uri or who/cid> [--ref <text>] [--lift]',
        text: 'hides a repo, a record or a blob, or shows it again',
        options: { ref: 'value', lift: 'flag' },
        least: 1,
        most: 1,
        run: takedown,
      },
      {
        usage: 'unenroll <who> [--yes]',
        text: 'ends a membership and erases its data',
        options: { yes: 'flag' },
        least: 1,
        most: 1,
        run: unenroll,
      },
      {
        usage: 'rotate-key',
        text: 'gives the OAuth client of the service its next key',
        ...few,
        run: rotateKey,
      },
      {
        usage: 'rotate-session-secret',
        text: 'signs sessions with a new secret, and ends none',
        ...few,
        run: rotateSessionSecret,
      },
      {
        usage: 'revoke-sessions <who>',
        text: 'signs somebody out everywhere, at once',
        least: 1,
        most: 1,
        run: revokeSessions,
      },
    ] satisfies AdminCommand[]
  ).map((command: AdminCommand) => [command.usage.split(' ')[0] ?? '', command]),
)

async function members({ client, options }: CommandCall): Promise<Outcome> {
  const wanted = options.get('boundary')
  const boundary = wanted === undefined ? undefined : await client.boundary(wanted)
  const ask = { name: 'members', params: { limit: 500, boundary } }
  const { items } = await client.pages('zone.stratos.admin.listMembers', ask)
  const bare = bareNames(await client.serviceDid())
  const rows = items.map((member) => [
    textIn(member, 'did'),
    flagIn(member, 'active') ? 'yes' : 'no',
    textIn(member, 'session'),
    textsIn(member, 'boundaries').map(bare).join(' ') || '-',
    textIn(member, 'enrolledAt'),
    textIn(member, 'pdsEndpoint'),
  ])
  const head = ['DID', 'ACTIVE', 'SESSION', 'BOUNDARIES', 'ENROLLED', 'PDS']
  return {
    json: { members: items },
    text: () => (rows.length === 0 ? 'nobody' : table(head, rows)),
  }
}

async function boundaries({ client }: CommandCall): Promise<Outcome> {
  const answer = await client.query('zone.stratos.admin.listBoundaries')
  const bare = bareNames(await client.serviceDid())
  const rows = listIn(answer, 'boundaries').map((entry) => [
    bare(textIn(entry, 'boundary')),
    String(numberIn(entry, 'members')),
    flagIn(entry, 'configured') ? 'yes' : 'no: gives access to nothing',
  ])
  return { json: answer, text: () => table(['BOUNDARY', 'MEMBERS', 'CONFIGURED'], rows) }
}

async function changeOne(
  verb: 'addBoundary' | 'removeBoundary',
  { client, values }: CommandCall,
): Promise<Outcome> {
  const [who = '', name = ''] = values
  const did = await client.did(who)
  const boundary = await client.boundary(name)
  return await changed(
    client,
    await client.procedure(`zone.stratos.admin.${verb}`, { did, boundary }),
  )
}

async function setAll({ client, options, values }: CommandCall): Promise<Outcome> {
  const [who = '', ...names] = values
  // Forgetting the names must not take everything away.
  if ((names.length === 0) !== options.has('none')) {
    throw new UsageError('set takes either boundaries or --none')
  }
  const did = await client.did(who)
  const wanted = await Promise.all(names.map((name) => client.boundary(name)))
  const input = { did, boundaries: wanted }
  return await changed(client, await client.procedure('zone.stratos.admin.setBoundaries', input))
}

async function changed(client: AdminClient, answer: Fields): Promise<Outcome> {
  const bare = bareNames(await client.serviceDid())
  const now = textsIn(answer, 'boundaries').map(bare).join(' ')
  const text = () => plain(`${textIn(answer, 'did')} is in ${now === '' ? 'no boundary' : now}`)
  return { json: answer, text }
}

async function outbox({ client, values }: CommandCall): Promise<Outcome> {
  const [who] = values
  const params = who === undefined ? { limit: 100 } : { did: await client.did(who) }
  const ask = { name: 'actors', params }
  const { items, last } = await client.pages('zone.stratos.admin.listOutbox', ask)
  const totals = fieldsIn(last, 'totals')
  return { json: { actors: items, totals }, text: () => outboxText(items, totals) }
}

function outboxText(actors: readonly Fields[], totals: Fields): string {
  const head = ['DID', 'STATE', 'PENDING', 'GIVEN UP', 'NEXT TRY']
  const rows = actors.map((actor) => [
    textIn(actor, 'did'),
    textIn(actor, 'state'),
    String(numberIn(actor, 'pending')),
    String(numberIn(actor, 'parkedCount')),
    actor['nextAttemptAt'] === undefined ? '-' : textIn(actor, 'nextAttemptAt'),
  ])
  const parked = actors.flatMap((actor) =>
    listIn(actor, 'parked').map((row) => [
      `at://${textIn(actor, 'did')}/${textIn(row, 'collection')}/${textIn(row, 'rkey')}`,
      textIn(row, 'reason'),
    ]),
  )
  const [undelivered, sessionLost, given] = ['undelivered', 'sessionLost', 'parked'].map((name) =>
    numberIn(totals, name),
  )
  const summary =
    `accounts that may have undelivered records: ${undelivered}, of which wait until the person ` +
    `signs in again: ${sessionLost}; that may have records that were given up: ${given}`
  return [
    ...(rows.length === 0 ? [] : [table(head, rows), '']),
    ...(parked.length === 0 ? [] : [table(['GIVEN UP ON THE PDS', 'WHY'], parked), '']),
    summary,
  ].join('\n')
}

async function takedown({ client, options, values }: CommandCall): Promise<Outcome> {
  const [what = ''] = values
  const ref = options.get('ref')
  const applied = !options.has('lift')
  if (!applied && ref !== undefined) throw new UsageError('--ref is for takedowns, not for --lift')
  const subject = await subjectOf(what, client)
  const answer = await client.procedure('com.atproto.admin.updateSubjectStatus', {
    subject,
    takedown: { applied, ...(ref === undefined ? {} : { ref }) },
  })
  const blob = 'cid' in subject && 'did' in subject ? `/${String(subject['cid'])}` : ''
  const named = `${String(subject['uri'] ?? subject['did'])}${blob}`
  const text = () => plain(`${named} is ${applied ? 'taken down' : 'no longer taken down'}`)
  return { json: answer, text }
}

/** An account, one of its blobs, or a record as the service refers to it. */
async function subjectOf(what: string, client: AdminClient): Promise<Fields> {
  if (!what.startsWith('at://')) {
    const [, owner = '', cid = ''] = /^(.+)\/([^/]+)$/.exec(what) ?? []
    if (cid !== '')
      return { $type: 'com.atproto.admin.defs#repoBlobRef', did: await client.did(owner), cid }
    return { $type: 'com.atproto.admin.defs#repoRef', did: await client.did(what) }
  }
  const [who = '', collection, rkey, ...more] = what.slice('at://'.length).split('/')
  if (collection === undefined || rkey === undefined || more.length > 0) {
    throw new UsageError('a record is named as at://{did}/{collection}/{rkey}')
  }
  const uri = `at://${await client.did(who)}/${collection}/${rkey}`
  return fieldsIn(await client.query('com.atproto.admin.getSubjectStatus', { uri }), 'subject')
}

async function unenroll({ client, options, values, around }: CommandCall): Promise<Outcome> {
  const { ask } = around
  const isSure = options.has('yes')
  if (!isSure && ask === undefined) {
    throw new UsageError('unenroll asks first: run it on a terminal, or with --yes')
  }
  const [who = ''] = values
  const did = await client.did(who)
  const named = plain(who === did ? did : `${who} (${did})`)
  if (!isSure && ask !== undefined) {
    const question = `Erase ${named} and all their private records? Type "yes" to go on: `
    if ((await ask(question)).trim() !== 'yes') throw new CommandFailed('nothing was done')
  }
  const answer = await client.procedure('zone.stratos.admin.unenroll', { did })
  return { json: { did, ...answer }, text: () => `${named} is no longer enrolled` }
}

async function rotateKey({ client }: CommandCall): Promise<Outcome> {
  const answer = await client.procedure('zone.stratos.admin.rotateOauthKey', {})
  const text = () => plain(`new sign-ins use the key ${textIn(answer, 'kid')}`)
  return { json: answer, text }
}

async function rotateSessionSecret({ client }: CommandCall): Promise<Outcome> {
  const answer = await client.procedure('zone.stratos.admin.rotateSessionSecret', {})
  const [kid, until] = [textIn(answer, 'kid'), textIn(answer, 'formerUntil')]
  const text = () => plain(`new sessions use the secret ${kid}; those before count until ${until}`)
  return { json: answer, text }
}

async function revokeSessions({ client, values }: CommandCall): Promise<Outcome> {
  const [who = ''] = values
  const did = await client.did(who)
  const answer = await client.procedure('zone.stratos.admin.revokeSessions', { did })
  const [sessions, browsers] = [numberIn(answer, 'sessions'), numberIn(answer, 'browsers')]
  const text = () => plain(`${did} is signed out; sessions: ${sessions}, browsers: ${browsers}`)
  return { json: answer, text }
}

/** Names of this service's boundaries as people say them; others stay whole. */
function bareNames(serviceDid: string): (boundary: string) => string {
  const prefix = `${serviceDid}/`
  return (name) => (name.startsWith(prefix) ? name.slice(prefix.length) : name)
}
