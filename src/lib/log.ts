/** Structured log lines, one JSON object each. Never give it a token, a key or record text. */
export interface Log {
  debug(event: string, fields?: LogFields): void
  info(event: string, fields?: LogFields): void
  warn(event: string, fields?: LogFields): void
  error(event: string, fields?: LogFields): void
  /** A log whose every line also carries `fields`. */
  with(fields: LogFields): Log
}

export type LogFields = Readonly<Record<string, unknown>>
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 }

function off(): void {
  // Below the level: costs a call and nothing more.
}

/** @param write receives each finished line, without its line break */
export function createLog(
  level: LogLevel,
  write: (line: string) => void,
  base: LogFields = {},
): Log {
  const at = (name: LogLevel) =>
    rank[name] < rank[level]
      ? off
      : (event: string, fields?: LogFields): void => {
          write(JSON.stringify({ time: new Date(), level: name, event, ...base, ...fields }, plain))
        }
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: (fields) => createLog(level, write, { ...base, ...fields }),
  }
}

/** Errors are no plain objects: JSON would print `{}`. */
function plain(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value
  const { name, message, stack, cause } = value
  return { name, message, stack, ...(cause === undefined ? {} : { cause }) }
}
