import { isLoopbackHost } from '../config.ts'
import { variables } from '../config/variables.ts'
import { UsageError } from './failures.ts'
import { type Env, setting } from './setting.ts'

/** The service that is spoken to, and the password for it. */
export interface Target {
  readonly origin: string
  readonly password: string
}

/**
 * @param url what `--url` says
 * @throws UsageError also where the password would travel readable
 */
export function targetOf(url: string | undefined, env: Env): Target {
  const origin = originOf(url ?? localUrl(env))
  const password = setting(variables.adminPassword, env)
  if (password === '') {
    throw new UsageError(
      `set ${variables.adminPassword.name} to the password that the service was started with`,
    )
  }
  return { origin, password }
}

function originOf(text: string): string {
  const url = URL.parse(text)
  const { protocol, hostname, origin } = url ?? { protocol: '', hostname: '', origin: '' }
  const isPlain = url !== null && url.href === `${origin}/`
  if (!isPlain || (protocol !== 'https:' && protocol !== 'http:')) {
    throw new UsageError('--url must be scheme and host alone, as in https://stratos.example.com')
  }
  if (protocol === 'http:' && !isLoopbackHost(hostname)) {
    throw new UsageError(
      `the password is not sent over http to ${hostname}: name the service by https, with --url`,
    )
  }
  return origin
}

/** The service on this machine, by the settings that it has in the same environment. */
function localUrl(env: Env): string {
  const host = setting(variables.host, env)
  const everywhere = new Map([
    ['0.0.0.0', '127.0.0.1'],
    ['::', '::1'],
  ])
  const name = everywhere.get(host) ?? host
  return `http://${name.includes(':') ? `[${name}]` : name}:${setting(variables.port, env)}`
}
