import { type Html, html } from '../html.ts'
import type { PageConfig } from './frame.ts'

/** What leaving does, and the way to do it, which asks once more. */
export function leaving({ stubs }: PageConfig): Html {
  const onPds =
    stubs === 'full'
      ? 'the record of your membership and every stub'
      : 'the record of your membership'
  return html`<section class="ending" aria-labelledby="leave-heading">
      <h2 id="leave-heading">Leave</h2>
      <p>Leaving cannot be undone.</p>
      <ul>
        <li>
          <b>Deleted here:</b> all your private records, your signing key, your place in every
          community, and this sign-in.
        </li>
        <li><b>Deleted on your PDS:</b> ${onPds}. Your account and all else there stays.</li>
        <li>
          <b>Kept here:</b> your DID with two counters, so that readers can tell new from old should
          you come back.
        </li>
        <li><b>Out of reach:</b> what others have read, they may have kept.</li>
      </ul>
      <button type="button" class="danger" id="leave" hidden>Leave…</button>
      <noscript><p class="hint">Leaving needs JavaScript in your browser.</p></noscript>
    </section>
    <dialog id="leave-dialog" aria-labelledby="leave-question">
      <h2 id="leave-question">Leave and delete everything you wrote here?</h2>
      <p>This cannot be undone.</p>
      <p class="error" id="leave-error" role="alert" hidden></p>
      <p class="hint" id="leave-progress" role="status"></p>
      <div class="choices">
        <button type="button" class="quiet" id="leave-stay" autofocus>Stay</button>
        <button type="button" class="danger" id="leave-confirm">Leave and delete</button>
      </div>
    </dialog>`
}
