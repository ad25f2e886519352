// What runs in the page of the app, and in browsers only.
import { BrowserOAuthClient, type OAuthSession } from '@atproto/oauth-client-browser'

import { bindSessionKey, thumbprintOf } from './bind-key.ts'
import { type Answer, fieldsOf, isFields, textOf } from './xrpc.ts'

/** What the page offers to whoever sits in front of it, as its global `app`. */
export interface PageOfApp {
  /** Who is signed in, by the library's own memory or by what the PDS sent along. */
  whoAmI(): Promise<string | undefined>
  /** Sends the browser to the person's PDS. */
  signIn(handle: string): Promise<void>
  /** Whether a script could carry the key away. */
  isKeyExtractable(): Promise<boolean>
  keyThumbprint(): Promise<string>
  /** @returns until when, or why not */
  bindKey(service: { readonly url: string; readonly did: string }): Promise<string>
  /** By nothing but the session, with an absolute address. */
  call(url: string, input?: Readonly<Record<string, unknown>>): Promise<PlainAnswer>
}

/** One that can leave the page. */
export type PlainAnswer = Pick<Answer, 'status' | 'body'>

const settings = fieldsOf({ settings: await (await fetch('/settings.json')).json() }, 'settings')
const client = await BrowserOAuthClient.load({
  clientId: textOf(settings, 'clientId'),
  handleResolver: textOf(settings, 'handleResolver'),
  plcDirectoryUrl: textOf(settings, 'plcDirectoryUrl'),
  allowHttp: true,
})
const signedIn = client.init()

const app: PageOfApp = {
  whoAmI: async () => (await signedIn)?.session.did,
  signIn: async (handle) => void (await client.signIn(handle)),
  isKeyExtractable: async () => {
    const { dpopKey } = (await theSession()).server
    if (!('cryptoKeyPair' in dpopKey)) throw new Error('the key is not one of WebCrypto')
    const { cryptoKeyPair } = dpopKey
    const { privateKey } = fieldsOf({ cryptoKeyPair }, 'cryptoKeyPair')
    if (!(privateKey instanceof CryptoKey)) throw new Error('the key is not one of WebCrypto')
    return privateKey.extractable
  },
  keyThumbprint: async () => thumbprintOf((await theSession()).server.dpopKey),
  bindKey: async (service) => bindSessionKey(await theSession(), service),
  call: async (url, input) => {
    const init = input && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(input),
    }
    const response = await (await theSession()).fetchHandler(url, init)
    const body: unknown = await response.json()
    return { status: response.status, body: isFields(body) ? body : {} }
  },
}
Object.assign(globalThis, { app })

async function theSession(): Promise<OAuthSession> {
  const session = (await signedIn)?.session
  if (session === undefined) throw new Error('nobody is signed in')
  return session
}
