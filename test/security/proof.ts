import { type AppKey, type Bent, dpopProof } from '../kit/dpop.ts'
import { verbOf } from '../kit/xrpc.ts'
import type { Door } from './doors.ts'
import type { World } from './world.ts'

/** A proof by `key` for one call and the token that goes with it, except for what `bent` changes. */
export async function proofFor(
  world: World,
  door: Door,
  { key, token, bent }: { readonly key: AppKey; readonly token: string; readonly bent?: Bent },
): Promise<string> {
  const htm = verbOf(door.call(world.actor('alice'), world))
  const htu = world.stratos.url + door.path
  return await dpopProof(key, { htm, htu, token, nonce: world.nonce }, bent)
}
