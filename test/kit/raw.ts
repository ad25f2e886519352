import { connect } from 'node:net'
import { within } from './wait.ts'

/** Bytes to send, or what to do until there are some, given what has come back so far. */
type Part = string | ((answer: () => string) => Promise<string>)

const answerMs = 10_000

/**
 * Sends what no HTTP client would send, or not in that way, and gives what comes back until the
 * other side closes the connection.
 */
export async function sendRaw(port: number, ...parts: readonly Part[]): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1' })
  let answer = ''
  const closed = Promise.withResolvers<void>()
  socket.on('data', (bytes) => {
    answer += String(bytes)
  })
  // A server that refuses early may reset the connection after its answer.
  socket.on('error', () => closed.resolve())
  socket.on('close', () => closed.resolve())
  try {
    for (const part of parts) {
      socket.write(typeof part === 'string' ? part : await part(() => answer))
    }
    await within(answerMs, 'end of the answer', closed.promise)
  } finally {
    socket.destroy()
  }
  return answer
}
