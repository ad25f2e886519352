/** Asks the service for a change. @returns what went wrong, for people; nothing when it is done */
export async function post(path: string): Promise<string | undefined> {
  try {
    const response = await fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
      signal: AbortSignal.timeout(answerMsMax),
    })
    if (response.ok) return undefined
    if (response.status === 401) return 'You are not signed in any more. Load the page anew.'
    if (response.status >= 500) return 'The service failed at this. Try again in a while.'
    return `This did not work: ${await messageOf(response)}.`
  } catch {
    return 'The service did not answer. Load the page anew to see whether it worked.'
  }
}

async function messageOf(response: Response): Promise<string> {
  const body: unknown = await response.json()
  const message = typeof body === 'object' && body !== null && 'message' in body && body.message
  return typeof message === 'string' ? message : `it answered ${response.status}`
}

const answerMsMax = 60_000
