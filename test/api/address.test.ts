import { expect, test } from 'bun:test'
import { clientNetwork, proxyList } from '../../src/api/address.ts'

const proxies = proxyList(['10.0.0.0/8', 'fd00::/8', '127.0.0.1/32'])
const none = proxyList([])

test.each([
  ['a peer that is no proxy speaks for itself alone', '203.0.113.9', '198.51.100.1', '203.0.113.9'],
  ['behind a proxy the address that it saw counts', '10.0.0.1', '198.51.100.1', '198.51.100.1'],
  [
    'what the caller wrote left of it does not',
    '10.0.0.1',
    '1.1.1.1, 198.51.100.1',
    '198.51.100.1',
  ],
  ['several proxies are passed', '10.0.0.1', '1.1.1.1, 198.51.100.1, 10.2.2.2', '198.51.100.1'],
  ['a proxy that saw a proxy only is itself counted', '10.0.0.1', null, '10.0.0.1'],
  ['garbage in the header ends the search', '10.0.0.1', '198.51.100.1, nonsense', '10.0.0.1'],
  [
    'IPv4 on a socket of both kinds is IPv4',
    '::ffff:10.0.0.1',
    '::ffff:198.51.100.1',
    '198.51.100.1',
  ],
  [
    'IPv4 in IPv6 is IPv4 in hexadecimal, too',
    '::ffff:a00:1',
    '0:0:0:0:0:FFFF:c633:6401',
    '198.51.100.1',
  ],
  [
    'a stranger in IPv4 in IPv6 speaks for itself alone',
    '::ffff:203.0.113.9',
    '10.0.0.7',
    '203.0.113.9',
  ],
  ['what a stranger says is nothing, even of a proxy', '203.0.113.9', '10.0.0.1', '203.0.113.9'],
  ['a proxy named by nobody but the caller is none', '10.0.0.1', '10.0.0.9', '10.0.0.9'],
  ['an empty entry ends the search', '10.0.0.1', '198.51.100.1,', '10.0.0.1'],
  ['so does an address with a port', '10.0.0.1', '198.51.100.1:443', '10.0.0.1'],
  ['and an address in other digits', '10.0.0.1', '0x7f.1', '10.0.0.1'],
  ['an empty header says nothing', '10.0.0.1', '', '10.0.0.1'],
  ['IPv6 of a zone counts as without it', 'fe80::1%eth0', null, 'fe80:0:0:0'],
  ['IPv6 that ends in IPv4 counts by its first half', '64:ff9b::8.8.8.8', null, '64:ff9b:0:0'],
  ['IPv6 counts by its first half', '2001:db8:0:7::1', null, '2001:db8:0:7'],
  ['however it is written', '2001:0DB8:0000:0007:9:9:9:9', null, '2001:db8:0:7'],
  ['a short IPv6 address too', '::1', null, '0:0:0:0'],
  ['and behind an IPv6 proxy', 'fd00::5', '2001:db8::1', '2001:db8:0:0'],
])('%s', (_, peer, forwardedFor, expected) => {
  expect(clientNetwork(peer, forwardedFor, proxies)).toBe(expected)
})

test('without proxies the header never counts', () => {
  expect(clientNetwork('127.0.0.1', '198.51.100.1', none)).toBe('127.0.0.1')
})
