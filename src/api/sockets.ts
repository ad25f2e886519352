import type { WebSocketHandler } from 'bun'
import type { Stream } from '../stream/streams.ts'

/** WebSockets of all streams: what happens to one is its stream's business. */
export const sockets: WebSocketHandler<Stream> = {
  // What is sent are records of a few hundred bytes: a window for each socket costs far more.
  perMessageDeflate: false,
  // Of cursors; all other messages are refused.
  maxPayloadLength: 1024 * 1024,
  // What is sent at once, beyond the point where a stream ends its reader.
  backpressureLimit: 64 * 1024 * 1024,
  closeOnBackpressureLimit: true,
  // After four pings without an answer.
  idleTimeout: 120,
  open: (socket) => socket.data.opened(socket),
  message: (socket, message) => socket.data.message(message),
  drain: (socket) => socket.data.drained(),
  close: (socket) => socket.data.closed(),
}
