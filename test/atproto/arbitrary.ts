import fc from 'fast-check'
import { cidForCbor, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'

const text = fc.string({ unit: 'binary', maxLength: 40 })
const key = fc
  .oneof(text, fc.constantFrom('a', 'b', 'aa', 'text', '1', '10', 'é', '😀', '\uFFFF', 'toString'))
  .filter((name) => !['__proto__', 'constructor', '$link', '$bytes', '$type'].includes(name))
const bytes = fc.uint8Array({ maxLength: 60 })
const link = fc
  .tuple(bytes, fc.boolean())
  .map(([content, raw]) => ({ $link: cidToString((raw ? cidForRaw : cidForCbor)(content)) }))
/** Where the width of an integer's head changes. */
const edges = [1, 24, 0x100, 0x10000, 2 ** 32, Number.MAX_SAFE_INTEGER]
const integer = fc.oneof(
  fc.maxSafeInteger(),
  fc.constantFrom(...edges.flatMap((edge) => [edge - 1, edge, -edge, 1 - edge])),
)

interface Values extends Record<string, unknown> {
  value: DataValue
  object: DataObject
}

const { value, object } = fc.letrec<Values>((tie) => ({
  value: fc.oneof(
    { maxDepth: 6, depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    integer,
    text,
    link,
    bytes.map((content) => ({ $bytes: content.toBase64({ omitPadding: true }) })),
    fc.array(tie('value'), { maxLength: 30 }),
    tie('object'),
  ),
  object: fc.dictionary(key, tie('value'), { maxKeys: 30, noNullPrototype: true }),
}))

/** Any value of the data model, in the JSON form that decoding gives. */
export const anyValue = value
export const anyObject = object
