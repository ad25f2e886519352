import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { unreachable } from '../../src/lib/assert.ts'
import type { Dice } from './dice.ts'
import { type Change, contentAtCut, type Luck } from './file-at-cut.ts'
import type { Op } from './trace.ts'

export interface Cut {
  /** Nothing from this line on was asked for. */
  readonly line: number
  readonly dice: Dice
  /**
   * What POSIX promises of names: one is on disk once its folder was synced, each for itself. Or what
   * file systems with a journal do, ext4 and XFS among them: names change in order, and a sync of
   * anything new brings its name, and so all names before it.
   */
  readonly names: 'by-folder' | 'in-order'
  /** Which syncs are taken for what they say: where not all are, any disk loses something. */
  readonly syncs: 'all' | 'of files' | 'none'
  /** Otherwise the dice tell. */
  readonly luck?: Luck
}

/** A folder, and all that was asked of it since it was as it is on disk. */
export class Disk {
  readonly #root: string
  readonly #ops: readonly Op[]
  readonly #before: string | undefined

  /**
   * @param ops on files below `root`, in order
   * @param before a folder with what was in `root` before, all of it on disk; by default nothing
   */
  constructor(root: string, ops: readonly Op[], before?: string) {
    this.#root = root
    this.#ops = ops
    this.#before = before
  }

  /** Writes into the folder `into` what there may be after a power cut. */
  rebuild(into: string, cut: Cut): void {
    const before = this.#before === undefined ? newFolder() : folderOf(this.#before)
    const history = new History(this.#root, before)
    for (const op of this.#ops) {
      if (op.start >= cut.line) break
      history.add(op, op.end < cut.line ? cut.syncs : 'none')
    }
    const { dice } = cut
    const luck = cut.luck ?? dice.one(lucks)
    // As strange as a disk can be: what one file had luck with, another one did not.
    const luckOfEach = () => cut.luck ?? (dice.oneIn(3) ? dice.one(lucks) : luck)
    namesAtCut(history, { ...cut, luck: luckOfEach() })
    write(history.root, into, (file) => {
      const last = file.syncs.reduce((most, { start }) => Math.max(most, start), -1)
      const changes = file.changes.map(({ end, change }): Change => {
        return { ...change, durable: end < last }
      })
      return contentAtCut(file.before, changes, { dice, luck: luckOfEach() })
    })
  }
}

const lucks: readonly Luck[] = ['none', 'all', 'writes', 'sectors']

interface File {
  readonly kind: 'file'
  readonly before: Buffer
  readonly changes: { readonly end: number; readonly change: LooseChange }[]
  readonly syncs: { readonly start: number }[]
}

type LooseChange = Change extends infer One
  ? One extends Change
    ? Omit<One, 'durable'>
    : never
  : never

interface Folder {
  readonly kind: 'folder'
  /** As the process sees them. */
  readonly live: Map<string, Node>
  /** As they are after the cut. */
  readonly kept: Map<string, Node>
  readonly syncs: { readonly start: number }[]
}

type Node = File | Folder

interface Place {
  readonly folder: Folder
  readonly name: string
}

/** A change of names: something comes to `to`, or it goes from `from`, or both at once. */
interface Naming {
  readonly end: number
  readonly node: Node
  readonly from?: Place
  readonly to?: Place
}

/** What happened to each file, whatever its name was at the time. */
class History {
  readonly root: Folder
  readonly namings: Naming[] = []
  /** By the last of the names that were given before the sync was asked for: what a sync brings. */
  readonly synced: { readonly start: number; readonly node: Node }[] = []
  readonly #rootPath: string

  constructor(rootPath: string, root: Folder) {
    this.#rootPath = rootPath
    this.root = root
  }

  /** @param counts which syncs are done before the cut; nothing else has to be */
  add(op: Op, counts: Cut['syncs']): void {
    const { start, end } = op
    switch (op.kind) {
      case 'say':
        return
      case 'make':
        return this.#make(op, end)
      case 'remove': {
        const from = this.#place(op.path)
        const node = this.#named(from)
        from.folder.live.delete(from.name)
        this.namings.push({ end, node, from })
        return
      }
      case 'rename': {
        const [from, to] = [this.#place(op.path), this.#place(op.to)]
        const node = this.#named(from)
        from.folder.live.delete(from.name)
        to.folder.live.set(to.name, node)
        this.namings.push({ end, node, from, to })
        return
      }
      case 'sync': {
        const node = op.path === this.#rootPath ? this.root : this.#named(this.#place(op.path))
        if (counts === 'none' || (counts === 'of files' && node.kind === 'folder')) return
        node.syncs.push({ start })
        this.synced.push({ start, node })
        return
      }
      case 'write':
      case 'resize':
      case 'grow': {
        const file = this.#named(this.#place(op.path))
        if (file.kind !== 'file') throw new Error(`${op.path} is a folder`)
        file.changes.push({ end, change: op })
        return
      }
      default:
        unreachable(op)
    }
  }

  #make({ path, what }: { path: string; what: Node['kind'] }, end: number): void {
    // The folder itself was there before.
    if (path === this.#rootPath) return
    const to = this.#place(path)
    if (to.folder.live.has(to.name)) return
    const node = what === 'folder' ? newFolder() : newFile()
    to.folder.live.set(to.name, node)
    this.namings.push({ end, node, to })
  }

  #named({ folder, name }: Place): Node {
    const node = folder.live.get(name)
    if (node === undefined) throw new Error(`${name} is not there`)
    return node
  }

  #place(path: string): Place {
    const parent = dirname(path)
    const folder = parent === this.#rootPath ? this.root : this.#named(this.#place(parent))
    if (folder.kind !== 'folder') throw new Error(`${parent} is a file`)
    return { folder, name: basename(path) }
  }
}

/**
 * Gives each folder the names that it has after the cut. A change of a name is there only with all
 * earlier ones of that name.
 */
function namesAtCut(
  { namings, synced }: History,
  { dice, names, luck }: Cut & { readonly luck: Luck },
): void {
  const least = namings.map((naming) => names === 'by-folder' && isSynced(naming))
  if (names === 'in-order') {
    const brought = synced.map(({ start, node }) =>
      namings.findLastIndex((naming) => naming.end < start && concerns(naming, node)),
    )
    least.fill(true, 0, Math.max(-1, ...brought) + 1)
  }
  // What is there brings what was before it under the same names.
  const needed = new Places()
  for (const [index, naming] of [...namings.entries()].toReversed()) {
    least[index] ||= placesOf(naming).some((place) => needed.has(place))
    if (least[index]) for (const place of placesOf(naming)) needed.add(place)
  }
  const dropped = new Places()
  let isOver = false
  for (const [index, naming] of namings.entries()) {
    const lost = luck === 'none' || (luck !== 'all' && dice.oneIn(3))
    const isBlocked = isOver || placesOf(naming).some((place) => dropped.has(place))
    if (least[index] !== true && (lost || isBlocked)) {
      if (names === 'in-order') isOver = true
      for (const place of placesOf(naming)) dropped.add(place)
      continue
    }
    const { node, from, to } = naming
    from?.folder.kept.delete(from.name)
    to?.folder.kept.set(to.name, node)
  }
}

/** A rename is one change of the file system: the sync of either folder brings all of it. */
function isSynced(naming: Naming): boolean {
  return placesOf(naming).some(({ folder }) => folder.syncs.some(({ start }) => start > naming.end))
}

function concerns(naming: Naming, node: Node): boolean {
  return naming.node === node || placesOf(naming).some(({ folder }) => folder === node)
}

function placesOf({ from, to }: Naming): Place[] {
  return [from, to].filter((place) => place !== undefined)
}

class Places {
  readonly #names = new Map<Folder, Set<string>>()

  has({ folder, name }: Place): boolean {
    return this.#names.get(folder)?.has(name) === true
  }

  add({ folder, name }: Place): void {
    const names = this.#names.get(folder) ?? new Set()
    this.#names.set(folder, names.add(name))
  }
}

function write(folder: Folder, into: string, content: (file: File) => Buffer): void {
  mkdirSync(into, { recursive: true, mode: 0o700 })
  for (const [name, node] of folder.kept) {
    const path = join(into, name)
    if (node.kind === 'folder') write(node, path, content)
    // Shared memory is gone with the power; SQLite makes it anew.
    else if (!name.endsWith('-shm')) writeFileSync(path, content(node), { mode: 0o600 })
  }
}

/** The same of a folder on a real disk, for comparison: content by path. */
export function contentsOf(folder: string): Map<string, Buffer> {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
  return new Map(
    paths
      .filter((entry) => entry.isFile() && !entry.name.endsWith('-shm'))
      .map((entry) => join(entry.parentPath, entry.name))
      .toSorted()
      .map((path) => [path.slice(folder.length + 1), readFileSync(path)]),
  )
}

function folderOf(path: string): Folder {
  const entries = readdirSync(path, { withFileTypes: true }).map((entry): [string, Node] => {
    const inner = join(path, entry.name)
    return [entry.name, entry.isFile() ? newFile(readFileSync(inner)) : folderOf(inner)]
  })
  return { ...newFolder(), live: new Map(entries), kept: new Map(entries) }
}

function newFile(before = Buffer.alloc(0)): File {
  return { kind: 'file', before, changes: [], syncs: [] }
}

function newFolder(): Folder {
  return { kind: 'folder', live: new Map(), kept: new Map(), syncs: [] }
}
