import { BlockList, isIP } from 'node:net'

/**
 * Whether an address belongs to one host on the public internet. Everything that stands for this
 * machine, its network, a group, or another address in disguise is refused.
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry
 * @see https://www.iana.org/assignments/iana-ipv6-special-registry
 */
export function isPublicAddress(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !reservedV4.check(address, 'ipv4')
    case 6:
      return globalV6.check(address, 'ipv6') && !reservedV6.check(address, 'ipv6')
    default:
      return false
  }
}

const reservedV4 = blocks('ipv4', [
  ['0.0.0.0', 8], // this network
  ['10.0.0.0', 8], // private
  ['100.64.0.0', 10], // carrier-grade NAT
  ['127.0.0.0', 8], // loopback
  ['169.254.0.0', 16], // link-local, cloud metadata
  ['172.16.0.0', 12], // private
  ['192.0.0.0', 24], // protocol assignments
  ['192.0.2.0', 24], // documentation
  ['192.88.99.0', 24], // 6to4 relays
  ['192.168.0.0', 16], // private
  ['198.18.0.0', 15], // benchmarks
  ['198.51.100.0', 24], // documentation
  ['203.0.113.0', 24], // documentation
  ['224.0.0.0', 4], // multicast
  ['240.0.0.0', 4], // reserved, broadcast
])

/**
 * All that is handed out today. Loopback, IPv4-mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`),
 * unique local, link-local and multicast addresses lie outside.
 */
const globalV6 = blocks('ipv6', [['2000::', 3]])

const reservedV6 = blocks('ipv6', [
  ['2001::', 23], // protocol assignments, among them Teredo, which carries IPv4 addresses
  ['2001:db8::', 32], // documentation
  ['2002::', 16], // 6to4, which carries IPv4 addresses
  ['3fff::', 20], // documentation
])

function blocks(family: 'ipv4' | 'ipv6', subnets: readonly (readonly [string, number])[]) {
  const list = new BlockList()
  for (const [net, prefix] of subnets) list.addSubnet(net, prefix, family)
  return list
}
