import { type Call, xrpcResponse } from './xrpc.ts'

/** An answer byte for byte: status, headers and body, without what differs each time. */
export async function exactAnswer(origin: string, nsid: string, call: Call): Promise<string> {
  return await exactText(await xrpcResponse(origin, nsid, call))
}

export async function exactText(response: Response): Promise<string> {
  const headers = [...response.headers]
    .filter(([name]) => name !== 'x-request-id' && name !== 'date')
    .map(([name, value]) => `${name}: ${value}`)
  return [`HTTP ${response.status}`, ...headers, '', await response.text()].join('\n')
}
