/** The rows of an actor do not make the tree that its newest commit signs, or not its blocks. */
export class RepoCorrupt extends Error {
  override readonly name = 'RepoCorrupt'
}
