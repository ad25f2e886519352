import { type Html, html } from '../html.ts'
import type { PageConfig } from './frame.ts'

/** What the world sees of a member, what it does not, and who could see more. */
export function publicity({ stubs, publishBoundaries, appViews }: PageConfig): Html {
  return html`<h3>Public</h3>
    <ul>
      <li>
        <b>That you are a member.</b> A record in your public repository names this service, the day
        you enrolled${publishBoundaries ? ', the communities you are in' : undefined} and the key
        that signs your records here.
      </li>
      ${stubs === 'full' ? stubsPublic : undefined}
    </ul>
    <h3>Not public</h3>
    <ul>
      <li>
        <b>What you write.</b> Each record names its communities. Only their members can read it,
        and the operator of this service, who runs its
        machines${appViews.size > 0 ? readers : undefined}.
      </li>
      <li>
        <b>For whom you write it.</b> Which communities a record is meant for stands in the record
        alone.
      </li>
      ${publishBoundaries ? undefined : boundariesPrivate}
      ${stubs === 'full' ? undefined : stubsPrivate}
    </ul>
    <h3>Whom you trust</h3>
    <ul>
      <li>
        <b>Your own PDS.</b> It holds the keys of your account and can sign as you. What an app
        writes or reads through it passes it in readable form.
      </li>
    </ul>`
}

const readers = ', with the apps that the operator lets read for them'

const stubsPublic = html`<li>
  <b>That you wrote something private.</b> Each private record leaves a stub in your public
  repository: its kind, its address, its time and a checksum that gives nothing of it away.
</li>`

const stubsPrivate = html`<li>
  <b>That you wrote anything at all.</b> This service puts nothing about single records into your
  public repository.
</li>`

const boundariesPrivate = html`<li>
  <b>Which communities you are in.</b> Other members see those that they share with you.
</li>`
