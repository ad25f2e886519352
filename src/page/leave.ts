import { post } from './post.ts'

/** The way out, on pages that have one: asks once more, says how it goes, and says goodbye. */
export function onLeave(): void {
  const leave = find(HTMLButtonElement, 'leave')
  const dialog = find(HTMLDialogElement, 'leave-dialog')
  const confirm = find(HTMLButtonElement, 'leave-confirm')
  const stay = find(HTMLButtonElement, 'leave-stay')
  const error = find(HTMLElement, 'leave-error')
  const progress = find(HTMLElement, 'leave-progress')
  if (!leave || !dialog || !confirm || !stay || !error || !progress) return

  let leaving = false
  const show = (now: { leaving: boolean; failure?: string }) => {
    leaving = now.leaving
    confirm.disabled = leaving
    stay.disabled = leaving
    progress.textContent = leaving ? 'Leaving. This may take a moment…' : ''
    error.hidden = now.failure === undefined
    error.textContent = now.failure ?? ''
  }
  const go = async () => {
    show({ leaving: true })
    const failure = await post('/oauth/revoke')
    show(failure === undefined ? { leaving: false } : { leaving: false, failure })
    if (failure !== undefined) return
    dialog.close()
    sayGoodbye()
  }

  leave.hidden = false
  leave.addEventListener('click', () => {
    show({ leaving: false })
    dialog.showModal()
  })
  stay.addEventListener('click', () => dialog.close())
  confirm.addEventListener('click', () => void go())
  // The Escape key means "stay", which is too late once it has begun.
  dialog.addEventListener('cancel', (event) => {
    if (leaving) event.preventDefault()
  })
}

function sayGoodbye(): void {
  find(HTMLElement, 'member')?.remove()
  document.querySelector('.person')?.remove()
  const left = find(HTMLElement, 'left')
  if (left === undefined) return
  left.hidden = false
  left.focus()
  document.title = 'You have left'
}

function find<Kind extends HTMLElement>(kind: new () => Kind, id: string): Kind | undefined {
  const element = document.querySelector(`#${id}`)
  return element instanceof kind ? element : undefined
}
