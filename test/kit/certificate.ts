import { createSign, generateKeyPairSync, randomBytes } from 'node:crypto'

/** A certificate with its key, both as PEM, that is its own authority. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

/**
 * Made for one name, signed by itself, good for an hour: for whoever trusts exactly this one.
 * @see https://www.rfc-editor.org/rfc/rfc5280#section-4.1
 */
export function certificateFor(name: string): Certificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const algorithm = sequence(objectId('2a8648ce3d040302'))
  const names = sequence(set(sequence(objectId('550403'), der(0x0c, Buffer.from(name)))))
  const alternatives = sequence(der(0x82, Buffer.from(name)))
  const content = sequence(
    der(0xa0, integer(Buffer.of(2))),
    integer(Buffer.concat([Buffer.of(1), randomBytes(15)])),
    algorithm,
    names,
    sequence(time(-60_000), time(60 * 60_000)),
    names,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(
      0xa3,
      sequence(
        extension('551d11', alternatives),
        // An authority, so that every TLS library takes it for a root.
        extension('551d13', sequence(der(0x01, Buffer.of(0xff)))),
      ),
    ),
  )
  const signature = createSign('sha256').update(content).sign(privateKey)
  const whole = sequence(content, algorithm, der(0x03, Buffer.concat([Buffer.of(0), signature])))
  return {
    cert: pem('CERTIFICATE', whole),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
  }
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const value = Buffer.concat(parts)
  const { length } = value
  const size =
    length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.of(tag, ...size), value])
}

function sequence(...parts: readonly Uint8Array[]): Buffer {
  return der(0x30, ...parts)
}

function set(...parts: readonly Uint8Array[]): Buffer {
  return der(0x31, ...parts)
}

function integer(bytes: Uint8Array): Buffer {
  return der(0x02, bytes)
}

/** @param hex the encoded identifier */
function objectId(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

function extension(id: string, value: Uint8Array): Buffer {
  return sequence(objectId(id), der(0x04, value))
}

function time(fromNowMs: number): Buffer {
  const text = new Date(Date.now() + fromNowMs).toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return der(0x18, Buffer.from(text))
}

function pem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
