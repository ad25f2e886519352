import { assert } from '../lib/assert.ts'
import { type MstChild, type MstLeaf, MstNode } from './mst-node.ts'

/** The tree with the leaf in it, whose key has the height. */
export function insert(node: MstNode, leaf: MstLeaf, height: number): MstNode {
  const { layer, leaves, children } = node
  if (node.size === 0) return new MstNode(height, [leaf], noPair)
  if (height > layer) {
    const [left, right] = split(node, leaf.key)
    return new MstNode(height, [leaf], [lift(left, height - 1), lift(right, height - 1)])
  }
  const place = node.place(leaf.key)
  const child = children[place]
  if (height < layer) {
    const lower =
      child === undefined
        ? lift(new MstNode(height, [leaf], noPair), layer - 1)
        : insert(child, leaf, height)
    return new MstNode(layer, leaves, children.with(place, lower))
  }
  if (leaves[place]?.key === leaf.key) {
    return new MstNode(layer, leaves.with(place, leaf), children)
  }
  const pair = child === undefined ? noPair : split(child, leaf.key)
  return new MstNode(layer, leaves.toSpliced(place, 0, leaf), children.toSpliced(place, 1, ...pair))
}

/** What is left without a key that is there; maybe a root without leaves. */
export function remove(node: MstNode, key: string): MstChild {
  const { layer, leaves, children } = node
  const place = node.place(key)
  const child = children[place]
  if (leaves[place]?.key === key) {
    const merged = merge(child, children[place + 1])
    return nodeOf(layer, leaves.toSpliced(place, 1), children.toSpliced(place, 2, merged))
  }
  assert(child !== undefined, 'the key is below')
  return nodeOf(layer, leaves, children.with(place, remove(child, key)))
}

/** What is below and what is above a key that the node does not hold. */
function split(node: MstNode, key: string): readonly [MstChild, MstChild] {
  const { layer, leaves, children } = node
  const place = node.place(key)
  const child = children[place]
  const [left, right] = child === undefined ? noPair : split(child, key)
  return [
    nodeOf(layer, leaves.slice(0, place), [...children.slice(0, place), left]),
    nodeOf(layer, leaves.slice(place), [right, ...children.slice(place + 1)]),
  ]
}

/** One node of two neighbours on one layer, all keys of `left` being below those of `right`. */
function merge(left: MstChild, right: MstChild): MstChild {
  if (left === undefined) return right
  if (right === undefined) return left
  return new MstNode(
    left.layer,
    [...left.leaves, ...right.leaves],
    [
      ...left.children.slice(0, -1),
      merge(left.children.at(-1), right.children[0]),
      ...right.children.slice(1),
    ],
  )
}

/** Nothing is left where neither a leaf nor a child is. */
function nodeOf(
  layer: number,
  leaves: readonly MstLeaf[],
  children: readonly MstChild[],
): MstChild {
  if (leaves.length === 0 && children[0] === undefined) return undefined
  return new MstNode(layer, leaves, children)
}

/** The same subtree, hung on nodes without leaves up to `layer`. */
function lift(node: MstChild, layer: number): MstChild {
  let lifted = node
  while (lifted !== undefined && lifted.layer < layer) {
    lifted = new MstNode(lifted.layer + 1, [], [lifted])
  }
  return lifted
}

const noPair: readonly [MstChild, MstChild] = [undefined, undefined]
