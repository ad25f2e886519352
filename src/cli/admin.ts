import { parseArguments } from './arguments.ts'
import { AdminClient } from './client.ts'
import { type AdminCommand, commands } from './commands.ts'
import { CommandFailed, UsageError } from './failures.ts'
import type { Surroundings } from './surroundings.ts'
import { plain } from './table.ts'
import { targetOf } from './target.ts'

/**
 * `stratos admin`: what the operator does with a running service, over its API.
 * @returns the exit code: 0, 1 when it did not work, 2 when it was called wrongly
 */
export async function admin(args: readonly string[], around: Surroundings): Promise<0 | 1 | 2> {
  const [name, ...rest] = args
  if (name === undefined || name === 'help' || args.includes('--help')) {
    around.print(help())
    return 0
  }
  try {
    const command = commands.get(name)
    if (command === undefined) throw new UsageError('there is no such command')
    await run(command, rest, around)
    return 0
  } catch (error) {
    if (!(error instanceof CommandFailed) && !(error instanceof UsageError)) throw error
    around.tell(`stratos admin: ${plain(error.message)}`)
    if (error instanceof CommandFailed) return 1
    around.tell('"stratos admin help" tells how to call it')
    return 2
  }
}

async function run(
  command: AdminCommand,
  args: readonly string[],
  around: Surroundings,
): Promise<void> {
  const { options, values } = parseArguments(args, {
    ...command,
    usage: `admin ${command.usage}`,
    options: { url: 'value', json: 'flag', ...command.options },
    secrets: 'the password is taken from STRATOS_ADMIN_PASSWORD and nowhere else',
  })
  const client = new AdminClient(targetOf(options.get('url'), around.env), around)
  const outcome = await command.run({ client, options, values, around })
  around.print(options.has('json') ? JSON.stringify(outcome.json, null, 2) : outcome.text())
}

function help(): string {
  const usages = [...commands.values()]
  const width = Math.max(...usages.map(({ usage }) => usage.length))
  const lines = usages.map(({ usage, text }) => `  stratos admin ${usage.padEnd(width)}  ${text}`)
  return `What the operator does with a running service, over its API

${lines.join('\n')}

Options of every command:

  --url <url>  the service; otherwise the one on this machine, by STRATOS_HOST and STRATOS_PORT
  --json       one JSON document for programs, instead of text for people

<who> is a DID, or the handle of somebody who is enrolled: the service looks it up.
<boundary> is a name, or the whole of one as {service DID}/{name}.

The password is that of STRATOS_ADMIN_PASSWORD in the environment and never an argument, which
other people on the machine could see. It is not sent over http beyond this machine.

Ends with 0, with 1 when it did not work, and with 2 when it was called wrongly.`
}
