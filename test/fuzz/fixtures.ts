/** Bytes that a reader might get wrong, and those that one did get wrong; all are to be refused. */
export const fixtures: readonly {
  /** Name of the target. */
  readonly of: string
  readonly why: string
  readonly hex: string
}[] = [
  { of: 'CBOR', why: 'a list of 2^32 in five bytes', hex: '9b0000000100000000' },
  { of: 'CBOR', why: 'lists in lists, a million deep', hex: '81'.repeat(1_000_000) },
  { of: 'CBOR', why: 'an integer of 2^53', hex: '1b0020000000000000' },
  { of: 'CBOR', why: 'a key __proto__', hex: 'a1695f5f70726f746f5f5f00' },
  { of: 'CBOR', why: 'a map that would read as bytes', hex: 'a166246279746573624141' },
  { of: 'CID', why: 'an identity hash', hex: '01710020' + '00'.repeat(32) },
  { of: 'node', why: 'a count of 2^32 - 1', hex: 'a261659affffffff' },
  { of: 'node', why: 'a tail of 2^32 - 1', hex: 'a2616581a4616b5affffffff' },
  { of: 'commit', why: 'a list', hex: '80' },
  { of: 'CAR', why: 'a length without end', hex: '80'.repeat(100) },
]
