import type { ByteSource } from '../lib/byte-source.ts'
import {
  CarError,
  type CarSection,
  carHeaderLength,
  carSectionHeadBytesMax,
  readCarHeader,
  readCarSection,
} from './car.ts'
import { BlockPlaces } from './car-places.ts'
import {
  type CidBytes,
  cidByteLength,
  cidMatches,
  parseCidBytes,
  cidToString,
  equalCids,
  isRawCidBytes,
} from './cid.ts'

export interface CarLimits {
  readonly carBytesMax: number
  readonly blockBytesMax: number
  readonly blocksMax: number
}

/**
 * Reads a CAR once from its start to its end, and yields how many bytes it has read whenever others
 * may have a turn. When it returns, the hash of every block was compared with its CID, no block
 * comes twice, and the one root is a CID of DAG-CBOR, which need not be among the blocks.
 * @throws CarError whatever the bytes are
 */
export function* indexCar(source: ByteSource, limits: CarLimits): Generator<number, CarIndex> {
  if (source.size > Math.min(limits.carBytesMax, carBytesMax)) {
    throw new CarError(`a CAR of ${source.size} bytes is over the limit`)
  }
  const root = readCarHeader(source.read(0, Math.min(carHeaderLength, source.size)))
  if (isRawCidBytes(root)) throw new CarError('the root must be DAG-CBOR')
  const places = new BlockPlaces()
  let pause = pauseBytes
  for (let at = carHeaderLength; at < source.size;) {
    if (places.count >= limits.blocksMax) {
      throw new CarError(`more than ${limits.blocksMax} blocks (byte ${at})`)
    }
    const { start, end } = sectionAt(source, at)
    if (end > source.size) throw new CarError(`a block is cut (byte ${at})`)
    if (end - start > limits.blockBytesMax) {
      throw new CarError(`a block is over the limit of ${limits.blockBytesMax} bytes (byte ${at})`)
    }
    const section = source.read(start - cidByteLength, end - start + cidByteLength)
    // A copy: to look for it may read elsewhere.
    const cid = parseCidBytes(new Uint8Array(section.subarray(0, cidByteLength)))
    if (!cidMatches(cid, section.subarray(cidByteLength))) {
      throw new CarError(`a block is not what its CID names: ${cidToString(cid)}`)
    }
    if (placeOf(cid, places, source) !== undefined) {
      throw new CarError(`a block comes twice: ${cidToString(cid)}`)
    }
    places.add(cid, at)
    at = end
    if (at < pause) continue
    pause = at + pauseBytes
    yield at
  }
  return new CarIndex(source, root, places)
}

/** The blocks of a CAR that was read through, where they lie: for each it holds some 20 bytes. */
export class CarIndex {
  readonly root: CidBytes
  readonly #source: ByteSource
  readonly #places: BlockPlaces

  constructor(source: ByteSource, root: CidBytes, places: BlockPlaces) {
    this.#source = source
    this.root = root
    this.#places = places
  }

  /** Blocks in the CAR. */
  get count(): number {
    return this.#places.count
  }

  /**
   * The block that the CAR is about, a view as that of `block`.
   * @throws CarError when it is not there
   */
  rootBlock(): Uint8Array {
    const block = this.block(this.root)
    if (block === undefined) throw new CarError(`the root is missing: ${cidToString(this.root)}`)
    return block
  }

  /** A view that is valid until the next block is asked for. */
  block(cid: CidBytes): Uint8Array | undefined {
    const place = placeOf(cid, this.#places, this.#source)
    if (place === undefined) return undefined
    const { start, end } = sectionAt(this.#source, place)
    return this.#source.read(start, end - start)
  }
}

/** What the places of blocks can say. */
const carBytesMax = 2 ** 32 - 1
/** Some milliseconds, even where it is a block after every forty bytes. */
const pauseBytes = 256 * 1024

function sectionAt(source: ByteSource, at: number): CarSection {
  return readCarSection(source.read(at, Math.min(carSectionHeadBytesMax, source.size - at)), at)
}

function placeOf(cid: CidBytes, places: BlockPlaces, source: ByteSource): number | undefined {
  return places.find(cid, (place) => equalCids(sectionAt(source, place).cid, cid))
}
