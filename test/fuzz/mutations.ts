import fc from 'fast-check'

/** Good bytes after a few changes, or after none. */
export function mutated(good: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  const edits = fc.array(edit, { maxLength: 4 })
  return fc.tuple(good, edits).map(([bytes, edits]) => {
    return edits.reduce((changed, change) => change(changed), bytes)
  })
}

type Edit = (bytes: Uint8Array) => Uint8Array

/** Where heads and varints change their width, and the ends of what they can say. */
const tellingBytes = [0, 1, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x40, 0x58, 0x7f, 0x80, 0x9f, 0xff]
/** Heads of 2^16, 2^31 - 1, 2^31, 2^32, 2^53 and 2^64 - 1, and varints of such sizes. */
const lengths = [
  '1a00010000',
  '5a7fffffff',
  '9a80000000',
  'bb0000000100000000',
  '1b0020000000000000',
  '5bffffffffffffffff',
  'ffffffff07',
  '8080808010',
  '8080808080808010',
  'ffffffffffffffffff01',
].map((hex) => Uint8Array.fromHex(hex))

/** Counts modulo what is there. */
const place = fc.nat(1_000_000)
const length = fc.integer({ min: 1, max: 60 })
const insert = fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 50 }), fc.constantFrom(...lengths))
const byte = fc.oneof(fc.constantFrom(...tellingBytes), fc.nat(255))

const edit: fc.Arbitrary<Edit> = fc.oneof(
  fc.tuple(place, fc.nat(7)).map(flip),
  fc.tuple(place, byte).map(set),
  fc.tuple(place, length).map(cut),
  fc.tuple(place, insert).map(splice),
  fc.tuple(place, place, length).map(copy),
  place.map(widenHead),
  place.map(widenVarint),
)

function flip([at, bit]: readonly [number, number]): Edit {
  return (bytes) =>
    bytes.map((byte, index) => (index === at % bytes.length ? byte ^ (1 << bit) : byte))
}

function set([at, byte]: readonly [number, number]): Edit {
  return (bytes) => bytes.map((old, index) => (index === at % bytes.length ? byte : old))
}

function cut([at, length]: readonly [number, number]): Edit {
  return (bytes) => {
    const [before, after] = halves(bytes, at)
    return Buffer.concat([before, after.subarray(length)])
  }
}

function splice([at, inserted]: readonly [number, Uint8Array]): Edit {
  return (bytes) => {
    const [before, after] = halves(bytes, at)
    return Buffer.concat([before, inserted, after])
  }
}

function copy([at, from, length]: readonly [number, number, number]): Edit {
  return (bytes) => splice([at, halves(bytes, from)[1].subarray(0, length)])(bytes)
}

/** A head of CBOR that holds its number, with the number in a byte of its own. */
function widenHead(at: number): Edit {
  return (bytes) => {
    const [before, after] = halves(bytes, at)
    const [head = 0] = after
    const wide = [(head & 0xe0) | 24, head & 0x1f]
    return Buffer.concat([before, Uint8Array.from(wide), after.subarray(1)])
  }
}

/** A varint of one byte, in two. */
function widenVarint(at: number): Edit {
  return (bytes) => {
    const [before, after] = halves(bytes, at)
    const wide = [(after[0] ?? 0) | 0x80, 0]
    return Buffer.concat([before, Uint8Array.from(wide), after.subarray(1)])
  }
}

function halves(bytes: Uint8Array, at: number): [Uint8Array, Uint8Array] {
  const place = at % (bytes.length + 1)
  return [bytes.subarray(0, place), bytes.subarray(place)]
}
