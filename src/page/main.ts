import { onLeave } from './leave.ts'
import { post } from './post.ts'

// What our pages do beyond links and forms. All there is to read is there without it.

const handle = document.querySelector<HTMLInputElement>('#handle')
handle?.form?.addEventListener('submit', () => {
  handle.value = bareHandle(handle.value)
})

const signOut = document.querySelector<HTMLButtonElement>('#sign-out')
if (signOut !== null) {
  signOut.hidden = false
  signOut.addEventListener('click', () => void onSignOut(signOut))
}

onLeave()

/** Without the `@` that people put before it, and what copying brings along unseen. */
function bareHandle(text: string): string {
  return text.replace(/[\s\p{Cf}]/gu, '').replace(/^@+/, '')
}

async function onSignOut(button: HTMLButtonElement): Promise<void> {
  button.disabled = true
  const failure = await post('/oauth/signout')
  if (failure === undefined) {
    location.replace('/')
    return
  }
  button.disabled = false
  const error = document.querySelector<HTMLElement>('#sign-out-error')
  if (error === null) return
  error.textContent = failure
  error.hidden = false
}
