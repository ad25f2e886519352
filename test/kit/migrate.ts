import { Database } from 'bun:sqlite'
import { join } from 'node:path'

import type { Account, Network } from './network.ts'
import { type Call, fieldsOf, textOf, xrpc, xrpcResponse } from './xrpc.ts'

/**
 * Moves an account with its repo to another PDS on the same directory, as its person does with any
 * tool for that, and deactivates it where it was.
 * @see https://atproto.com/guides/account-migration
 */
export async function migrate(
  account: Account,
  { from, to }: { readonly from: Network; readonly to: Network },
): Promise<Account> {
  const { did, handle, password } = account
  const atOld = (nsid: string, call: Call = {}) => called(account, nsid, call)
  const aud = textOf(
    await called({ pdsUrl: to.pdsUrl }, 'com.atproto.server.describeServer'),
    'did',
  )
  const lxm = 'com.atproto.server.createAccount'
  const token = await from.serviceAuth(account, { aud, lxm })
  const created = await called({ pdsUrl: to.pdsUrl }, lxm, {
    input: { did, handle, password, email: `${did.slice(-8)}@mail.test` },
    authorization: `Bearer ${token}`,
  })
  const moved = { ...account, accessJwt: textOf(created, 'accessJwt'), pdsUrl: to.pdsUrl }
  const atNew = (nsid: string, call: Call = {}) => called(moved, nsid, call)

  await importRepo(account, moved)
  const credentials = await atNew('com.atproto.identity.getRecommendedDidCredentials')
  await atOld('com.atproto.identity.requestPlcOperationSignature', { verb: 'POST' })
  const signed = await atOld('com.atproto.identity.signPlcOperation', {
    input: { ...credentials, token: mailedToken(from.pdsData, did) },
  })
  const operation = fieldsOf(signed, 'operation')
  await atNew('com.atproto.identity.submitPlcOperation', { input: { operation } })
  await atNew('com.atproto.server.activateAccount', { verb: 'POST' })
  await atOld('com.atproto.server.deactivateAccount', { input: {} })
  return moved
}

async function importRepo(account: Account, moved: Account): Promise<void> {
  const params = { did: account.did }
  const repo = await xrpcResponse(account.pdsUrl, 'com.atproto.sync.getRepo', { params })
  const imported = await fetch(new URL('/xrpc/com.atproto.repo.importRepo', moved.pdsUrl), {
    method: 'POST',
    headers: {
      authorization: `Bearer ${moved.accessJwt}`,
      'content-type': 'application/vnd.ipld.car',
    },
    body: await repo.bytes(),
  })
  if (!imported.ok) throw new Error(`importRepo answered ${imported.status}`)
}

/** What the PDS would have mailed. */
function mailedToken(pdsData: string, did: string): string {
  using database = new Database(join(pdsData, 'account.sqlite'), { readonly: true })
  const sql = `select token from email_token where did = ?1 and purpose = 'plc_operation'`
  const row = database.query<{ token: string }, [string]>(sql).get(did)
  if (row === null) throw new Error('the PDS has mailed no token')
  return row.token
}

async function called(
  at: { readonly pdsUrl: string; readonly accessJwt?: string },
  nsid: string,
  call: Call = {},
) {
  const authorization =
    at.accessJwt === undefined ? {} : { authorization: `Bearer ${at.accessJwt}` }
  const { status, body } = await xrpc(at.pdsUrl, nsid, { ...authorization, ...call })
  if (status === 200) return body
  throw new Error(`${nsid} answered ${status} ${JSON.stringify(body)}`)
}
