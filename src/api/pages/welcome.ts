import { type Html, html } from '../html.ts'
import type { Standing } from '../standing.ts'
import { framed, type PageConfig, signedIn, signInAgain } from './frame.ts'
import { publicity } from './publicity.ts'

/** For whoever is not signed in: what this is, what becomes public, and the way in. */
export function welcomePage(config: PageConfig): Response {
  const main = html`<h1>Write for your community, not for the whole world</h1>
    <p class="lead">
      Here your AT Protocol account holds private records: only members of the communities that you
      choose can read them. Your account stays where it is.
    </p>
    <section class="card" aria-labelledby="sign-in">
      <h2 id="sign-in">Sign in</h2>
      <form action="/oauth/authorize" method="get">
        <label for="handle">Your handle or DID</label>
        <input
          id="handle"
          name="handle"
          required
          autocapitalize="none"
          autocorrect="off"
          autocomplete="username"
          spellcheck="false"
          placeholder="you.example.com"
          aria-describedby="handle-hint"
        />
        <p class="hint" id="handle-hint">
          You type your password at your own PDS, not here. The first time, this enrolls you: your
          PDS shows what this service asks for, and you can say no.
        </p>
        <button>Continue to your PDS</button>
      </form>
    </section>
    ${admission(config)}
    <section aria-labelledby="public">
      <h2 id="public">What becomes public, and what does not</h2>
      ${publicity(config)}
    </section>
    <section aria-labelledby="leaving">
      <h2 id="leaving">Leaving</h2>
      <p>
        You can leave at any time, on this page. That deletes what you wrote here, and takes back
        what this service put into your public repository.
      </p>
    </section>`
  return framed(config, { title: config.clientName, main })
}

/** For somebody who is signed in and not enrolled, as after leaving with another program. */
export function strangerPage(standing: Standing, config: PageConfig): Response {
  const main = html`<h1>You are not a member</h1>
    <p class="lead">
      You are signed in, but not enrolled with this service: nothing of yours is kept here. Perhaps
      you left.
    </p>
    ${signInAgain(standing.did, 'Enroll')} ${admission(config)}
    <section aria-labelledby="public">
      <h2 id="public">What becomes public, and what does not</h2>
      ${publicity(config)}
    </section>`
  return framed(config, { title: 'Not a member', main, person: signedIn(standing) })
}

function admission({ enrollmentMode, domains, boundaries, newBoundaries }: PageConfig): Html {
  const who =
    enrollmentMode === 'open'
      ? 'Everybody with an AT Protocol account may enroll.'
      : 'Accounts that the operator of this service admits may enroll.'
  const all = newBoundaries.length === boundaries.length
  const where = all
    ? 'New members are in all of these communities:'
    : 'The operator decides who is in which of these communities:'
  return html`<section aria-labelledby="who">
    <h2 id="who">Who may enroll</h2>
    <p>${who} ${where}</p>
    ${nameList(domains)}
  </section>`
}

/** Bare names of boundaries. */
export function nameList(names: readonly string[]): Html {
  return html`<ul class="names">
    ${names.map((name) => html`<li>${name}</li>`)}
  </ul>`
}
