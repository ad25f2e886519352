import { createServer } from 'node:net'
import { once } from 'node:events'

/**
 * A port of 127.0.0.1 that is free at the moment, below those that the system gives to outgoing
 * connections: one of them could take it before a server does.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (ephemeral - lowest))
    if (await isFree(port)) return port
  }
}

const lowest = 10_000
/** Where Linux begins by default; other systems begin higher. */
const ephemeral = 32_768

async function isFree(port: number): Promise<boolean> {
  const probe = createServer()
  try {
    probe.listen(port, '127.0.0.1')
    await once(probe, 'listening')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') return false
    throw error
  }
  probe.close()
  await once(probe, 'close')
  return true
}
