import { BlockList, isIP, isIPv6 } from 'node:net'

/** Networks of reverse proxies whose word on addresses counts, as `address/bits`. */
export function proxyList(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits = ''] = network.split('/')
    list.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4')
  }
  return list
}

/**
 * Whom limits per address count: the peer, or, behind trusted proxies, the address that the
 * outermost of them saw. What stands further left in `X-Forwarded-For` anybody can write.
 * @returns an IPv4 address, or the first four groups of an IPv6 one: a person has a whole /64
 */
export function clientNetwork(
  peer: string,
  forwardedFor: string | null,
  proxies: BlockList,
): string {
  let address = unmapped(peer)
  const hops = forwardedFor?.split(',').map((hop) => unmapped(hop.trim())) ?? []
  while (hops.length > 0 && isTrusted(address, proxies)) {
    const next = hops.pop()
    if (next === undefined || isIP(next) === 0) break
    address = next
  }
  return isIPv6(address) ? firstGroups(address) : address
}

function isTrusted(address: string, proxies: BlockList): boolean {
  const version = isIP(address)
  return version !== 0 && proxies.check(address, version === 6 ? 'ipv6' : 'ipv4')
}

/** IPv4 as it shows on a socket that takes both, in either way to write it. */
function unmapped(address: string): string {
  if (!isIPv6(address)) return address
  const dotted = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (dotted !== undefined) return dotted
  const [last = '', before = '', ...rest] = groupsOf(address).toReversed()
  if (rest.join(':') !== 'ffff:0:0:0:0:0') return address
  const bytes = Buffer.from(before.padStart(4, '0') + last.padStart(4, '0'), 'hex')
  return [...bytes].join('.')
}

function firstGroups(address: string): string {
  return groupsOf(address).slice(0, 4).join(':')
}

/** All eight, without leading zeros. */
function groupsOf(address: string): string[] {
  const [plain = ''] = address.split('%')
  const [head = '', tail] = plain
    .split('::')
    .map((part) => part.split(':').filter(Boolean).flatMap(hexGroups))
  const left = head === '' ? [] : head
  const right = tail ?? []
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length)
  const groups = [...left, ...Array<string>(zeros).fill('0'), ...right]
  return groups.map((group) => group.replace(/^0+(?=.)/, '').toLowerCase())
}

/** The last 32 bits may be written as IPv4. */
function hexGroups(group: string): string[] {
  if (!group.includes('.')) return [group]
  const hex = Buffer.from(group.split('.').map(Number)).toString('hex')
  return [hex.slice(0, 4), hex.slice(4)]
}
