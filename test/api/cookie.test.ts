import { describe, expect, test } from 'bun:test'
import { Cookie } from '../../src/api/cookie.ts'

const value = 'x'.repeat(43)

describe.each([
  ['https://stratos.example.com', '__Host-name', '; Secure'],
  ['http://localhost:3100', 'name', ''],
  // Where a certificate is missing a cookie that asks for one would never come back.
  ['http://stratos.example.com', 'name', ''],
])('at %s', (url, name, secure) => {
  const cookie = new Cookie('name', url)

  test('no script reads it, no other site sends it along, no other host gets it', () => {
    const line = `${name}=${value}; Max-Age=60; Path=/; HttpOnly; SameSite=Lax${secure}`
    expect(cookie.write(value, 60)).toBe(line)
    expect(cookie.write(value, 60)).not.toContain('Domain')
  })

  test('it goes as it came', () => {
    const line = `${name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax${secure}`
    expect(cookie.remove()).toBe(line)
  })

  test('it is read under this name and no other', () => {
    const read = (header: string) => cookie.read(new Request(url, { headers: { cookie: header } }))
    for (const other of ['', value, `x${name}=${value}`, `${name}x=${value}`, `${name}=`]) {
      expect(read(other)).toBeUndefined()
    }
    expect(read(`${name.toUpperCase()}=${value}`)).toBeUndefined()
    const foreign = name === 'name' ? '__Host-name' : 'name'
    expect(read(`${foreign}=${value}`)).toBeUndefined()
    expect(read(`a=b; ${foreign}=y; ${name}=${value}`)).toBe(value)
  })
})
