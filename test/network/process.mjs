// What the two servers of the development network share: where they listen and when they end.
import { once } from 'node:events'
import net from 'node:net'

/**
 * Neither server can be told an address; both call `listen(port)`, which means every interface.
 * Throwaway accounts and a fixed handle domain are nothing for the neighbours, so a bare port
 * becomes loopback here. Call it before anything listens.
 */
export function listenOnLoopbackOnly() {
  const { value: listen } = Object.getOwnPropertyDescriptor(net.Server.prototype, 'listen')
  net.Server.prototype.listen = function (...values) {
    if (typeof values[0] !== 'number') return listen.apply(this, values)
    const [port, ...rest] = values
    return listen.call(this, { port, host: '127.0.0.1' }, ...rest)
  }
}

/** The given port, or one that is free at the moment. */
export async function portOr(given) {
  if (given !== undefined) return Number(given)
  const probe = net.createServer()
  probe.listen(0)
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

/**
 * Says on standard output, as one line of JSON, that the server answers; then waits to be ended,
 * by a signal or by the end of standard input: when the parent dies, however it dies, nothing
 * stays behind.
 */
export function announceAndWait(facts) {
  const end = new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, resolve)
    process.stdin.once('close', resolve)
    process.stdin.resume()
  })
  process.stdout.write(`${JSON.stringify({ ...facts, pid: process.pid })}\n`)
  return end
}
