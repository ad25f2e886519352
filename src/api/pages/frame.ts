import type { Config } from '../../config.ts'
import type { Did, Handle } from '../../atproto/syntax.ts'
import { assetPaths } from '../assets.ts'
import { type Html, html } from '../html.ts'
import { page } from '../page.ts'

export type PageConfig = Pick<
  Config,
  | 'clientName'
  | 'serviceDid'
  | 'domains'
  | 'boundaries'
  | 'newBoundaries'
  | 'enrollmentMode'
  | 'operatorContact'
  | 'stubs'
  | 'publishBoundaries'
  | 'appViews'
> & { readonly clientTosUri?: string; readonly clientPolicyUri?: string }

/** A page of this service, between what stands above and below each of them. */
export function framed(
  config: PageConfig,
  { title, main, person }: { title: string; main: Html; person?: Html },
): Response {
  const header = html`<header class="top">
    <a class="brand" href="/"
      ><img src="${assetPaths.icon}" alt="" width="28" height="28" /><span
        >${config.clientName}</span
      ></a
    >
    ${person}
  </header>`
  const documentTitle = title === config.clientName ? title : `${title} · ${config.clientName}`
  return page({ title: documentTitle, main, header, footer: footerOf(config) })
}

/** Who is signed in, and the way out. Scripts show the button: without them it could do nothing. */
export function signedIn({ did, handle }: { did: Did; handle: Handle | undefined }): Html {
  return html`<div class="person">
      <span>Signed in as <b>${handle === undefined ? did : `@${handle}`}</b></span>
      <button type="button" class="quiet" id="sign-out" hidden>Sign out</button>
      <noscript>(signing out needs JavaScript; you are signed out after a day)</noscript>
    </div>
    <p class="error" id="sign-out-error" role="alert" hidden></p>`
}

/** Leads somebody whose DID is known to their PDS and back. */
export function signInAgain(did: Did, label: string): Html {
  return html`<form action="/oauth/authorize" method="get">
    <input type="hidden" name="handle" value="${did}" />
    <button>${label}</button>
  </form>`
}

function footerOf(config: PageConfig): Html {
  const { operatorContact, serviceDid, clientTosUri, clientPolicyUri } = config
  const contact =
    operatorContact === '' ? undefined : html`<li>Operator: ${contactLink(operatorContact)}</li>`
  const terms = linkItem('Terms of service', clientTosUri)
  const privacy = linkItem('Privacy policy', clientPolicyUri)
  return html`<footer>
    <ul>
      ${contact} ${terms} ${privacy}
      <li>Service: <code>${serviceDid}</code></li>
    </ul>
  </footer>`
}

/** Nothing for an address that leads to no page. */
function linkItem(label: string, address = ''): Html | undefined {
  return isWebAddress(address) ? html`<li><a href="${address}">${label}</a></li>` : undefined
}

function isWebAddress(text: string): boolean {
  return /^https?:\/\/\S+$/i.test(text)
}

function contactLink(contact: string): Html {
  if (isWebAddress(contact)) return html`<a href="${contact}">${contact}</a>`
  if (!/^[^\s@/:?&]+@[^\s@/:?&]+$/.test(contact)) return html`${contact}`
  return html`<a href="mailto:${contact}">${contact}</a>`
}
