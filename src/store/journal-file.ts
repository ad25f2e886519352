import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { assert } from '../lib/assert.ts'
import { syncFolder } from '../lib/files.ts'

/**
 * A file of a fixed size into which frames are written one after another, then from its start anew:
 * to write over what is there costs the disk about half of what it costs to make a file longer.
 *
 * - Every use of the file, from its start on, has a secret of its own that each of its frames
 *   repeats. What an earlier use left behind the last frame counts no more, and nobody can write a
 *   record that would be taken for a frame there.
 * - Each frame has a number and a checksum: one that is half on disk ends the file.
 * - A frame begins on a page of its own, so that writing it never puts the one before at risk.
 */
export class JournalFile {
  readonly #file: number
  readonly #bytesMax: number
  #use = Buffer.alloc(useLength)
  #frames = 0
  #end = 0
  /** What is not known to be zero. */
  #usedEnd: number

  /** @throws when the file is there already: whoever left it may have changes in it */
  constructor(path: string, bytesMax: number) {
    this.#bytesMax = bytesMax
    this.#usedEnd = bytesMax
    this.#file = openSync(path, 'wx+', 0o600)
    this.wipe()
    syncFolder(dirname(path))
  }

  get isEmpty(): boolean {
    return this.#frames === 0
  }

  /** Starts a new use. @param order tells which of two files was begun later */
  begin(order: number): void {
    this.#use = Buffer.alloc(useLength)
    this.#use.writeBigUInt64LE(BigInt(order))
    randomBytes(secretLength).copy(this.#use, 8)
    this.#frames = 0
    this.#end = 0
  }

  fits(body: Uint8Array): boolean {
    return this.#end + frameLength(body) <= this.#bytesMax
  }

  /** Writes a frame; it is durable after `sync`. */
  append(body: Uint8Array): void {
    const frame = sealed(body, this.#use, this.#frames)
    assert(this.#end + frame.length <= this.#bytesMax, 'the frame fits')
    writeAll(this.#file, frame, this.#end)
    this.#end += frame.length
    this.#frames += 1
    this.#usedEnd = Math.max(this.#usedEnd, this.#end)
  }

  sync(): void {
    fdatasyncSync(this.#file)
  }

  /** Overwrites everything that was ever written. Writing goes on as if nothing had been. */
  wipe(): void {
    const zeros = Buffer.alloc(Math.min(this.#usedEnd, wipeBytes))
    for (let at = 0; at < this.#usedEnd; at += zeros.length) {
      writeAll(this.#file, zeros.subarray(0, this.#usedEnd - at), at)
    }
    fsyncSync(this.#file)
    this.#usedEnd = 0
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** What one use of a file left, in the order of writing. */
export interface JournalUse {
  readonly order: number
  readonly bodies: readonly Uint8Array[]
}

/** Undefined where the file begins with no whole frame. */
export function readJournalFile(path: string): JournalUse | undefined {
  const bytes = readFileSync(path)
  const bodies: Uint8Array[] = []
  const use = bytes.subarray(useStart, useStart + useLength)
  for (let at = 0; at < bytes.length;) {
    const frame = frameAt(bytes, at)
    if (frame === undefined) break
    const { number, body } = frame
    if (number !== bodies.length || !frame.use.equals(use)) break
    bodies.push(body)
    at += frameLength(body)
  }
  if (bodies.length === 0) return undefined
  return { order: Number(use.readBigUInt64LE()), bodies }
}

/** Checksum of all that follows it, magic number, number, length of the body, use. */
const magic = 0x4c4a5453
const secretLength = 16
const useLength = 8 + secretLength
const useStart = 20
const headLength = useStart + useLength
const pageBytes = 4096
const wipeBytes = 1024 * 1024

function frameLength(body: Uint8Array): number {
  return Math.ceil((headLength + body.length) / pageBytes) * pageBytes
}

function sealed(body: Uint8Array, use: Buffer, number: number): Buffer {
  const frame = Buffer.alloc(frameLength(body))
  frame.writeUInt32LE(magic, 8)
  frame.writeUInt32LE(number, 12)
  frame.writeUInt32LE(body.length, 16)
  use.copy(frame, useStart)
  frame.set(body, headLength)
  frame.writeBigUInt64LE(checksum(frame))
  return frame
}

function frameAt(bytes: Buffer, at: number) {
  if (at + headLength > bytes.length || bytes.readUInt32LE(at + 8) !== magic) return undefined
  const length = bytes.readUInt32LE(at + 16)
  const body = bytes.subarray(at + headLength, at + headLength + length)
  const frame = bytes.subarray(at, at + frameLength(body))
  if (body.length !== length || frame.readBigUInt64LE() !== checksum(frame)) return undefined
  const use = frame.subarray(useStart, useStart + useLength)
  return { number: frame.readUInt32LE(12), use, body }
}

function checksum(frame: Buffer): bigint {
  return Bun.hash.xxHash64(frame.subarray(8))
}

function writeAll(file: number, bytes: Uint8Array, place: number): void {
  for (let at = 0; at < bytes.length;) {
    at += writeSync(file, bytes, at, bytes.length - at, place + at)
  }
}
