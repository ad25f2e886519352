import { bareBoundary } from '../../service/boundary.ts'
import type { Enrollment } from '../../store/service.ts'
import { type Html, html } from '../html.ts'
import type { Standing } from '../standing.ts'
import { framed, type PageConfig, signedIn, signInAgain } from './frame.ts'
import { leaving } from './leaving.ts'
import { publicity } from './publicity.ts'
import { nameList } from './welcome.ts'

type Member = Standing & { readonly membership: Enrollment }

/** For members: where they stand, what needs their attention, and the way out. */
export function memberPage(member: Member, config: PageConfig): Response {
  const main = html`<div id="member">
      <h1>Your membership</h1>
      ${notices(member, config)} ${facts(member)} ${keys(member.membership)}
      <section aria-labelledby="public">
        <h2 id="public">What is public about you</h2>
        <details>
          <summary>What the world sees, what it does not, and whom you trust</summary>
          ${publicity(config)}
        </details>
      </section>
      ${leaving(config)}
    </div>
    <div id="left" tabindex="-1" hidden>
      <h1>You have left</h1>
      <p class="lead">
        What you wrote here is no longer served to anybody and is being deleted. What this service
        put into your public repository is being removed there, which can take some time.
      </p>
      <p><a href="/">Back to the start</a></p>
    </div>`
  return framed(config, { title: 'Your membership', main, person: signedIn(member) })
}

function notices(member: Member, config: PageConfig): Html[] {
  const { membership, session, missingScopes } = member
  const found: Html[] = []
  if (!membership.active) found.push(inactive)
  if (session === 'lost') found.push(lost(member, config))
  else if (missingScopes.length > 0) found.push(lesser(member, config))
  return found
}

const inactive = html`<section class="notice" aria-labelledby="inactive">
  <h2 id="inactive">Your membership is inactive</h2>
  <p>
    Until the operator of this service admits you again, you can write nothing here and read only
    what you wrote yourself. No other member reads that meanwhile; it is kept.
  </p>
</section>`

function lost({ did }: Member, { stubs }: PageConfig): Html {
  return html`<section class="notice" aria-labelledby="lost">
    <h2 id="lost">The connection to your PDS is lost</h2>
    <p>
      This service cannot write to your public repository any more, where it keeps the record of
      your membership${stubs === 'full' ? ' and the stubs of your private records' : undefined}. The
      private records themselves are safe. Sign in again, and it catches up.
    </p>
    ${signInAgain(did, 'Sign in again')}
  </section>`
}

function lesser({ did, missingScopes }: Member, { stubs }: PageConfig): Html {
  const names = missingScopes.map(
    (scope) => html`<li><code>${scope.replace(/^repo:/, '')}</code></li>`,
  )
  const why =
    stubs === 'full'
      ? 'Private records of such a kind leave no stub there, and apps do not find them by it.'
      : undefined
  return html`<section class="notice" aria-labelledby="lesser">
    <h2 id="lesser">Your PDS granted less than this service asked for</h2>
    <p>This service may not write to these collections of your public repository:</p>
    <ul>
      ${names}
    </ul>
    <p>${why} To change that, enroll again and agree to all of it.</p>
    ${signInAgain(did, 'Enroll again')}
  </section>`
}

function facts({ did, handle, membership, session }: Member): Html {
  const { boundaries, enrolledAt, pdsEndpoint } = membership
  const communities =
    boundaries.length === 0
      ? html`None yet. The operator of this service puts members into communities.`
      : nameList(boundaries.map(bareBoundary))
  const works =
    session === 'present'
      ? 'connected: this service can write to your public repository'
      : 'the connection is lost'
  return html`<dl class="card">
    <dt>Account</dt>
    <dd>${handle === undefined ? undefined : html`<b>@${handle}</b><br />`}<code>${did}</code></dd>
    <dt>Communities</dt>
    <dd>${communities}</dd>
    <dt>Member since</dt>
    <dd><time datetime="${enrolledAt}">${day(enrolledAt)}</time></dd>
    <dt>Your PDS</dt>
    <dd>${pdsEndpoint.replace(/^https:\/\//, '')}<br /><span class="hint">${works}</span></dd>
  </dl>`
}

function keys({ signingKey }: Enrollment): Html {
  return html`<section aria-labelledby="keys">
    <h2 id="keys">Connected keys</h2>
    <ul class="keys">
      <li>
        <b>Your signing key</b>
        <code>${signingKey}</code>
        <span class="hint"
          >Made by this service for you alone. It signs your private records; the public record of
          your membership names it.</span
        >
      </li>
    </ul>
  </section>`
}

function day(time: string): string {
  const date = new Date(time)
  if (Number.isNaN(date.getTime())) return time
  return date.toLocaleDateString('en-GB', { dateStyle: 'long', timeZone: 'UTC' })
}
