import { type Breaks, breaksOf, type Make } from './kind.ts'
import { proofFor } from './proof.ts'

/**
 * What can go wrong with the header alone, around a credential that is sound.
 * @param sound gives an `Authorization` of one scheme and one credential
 */
export function headerBreaks(sound: Make): Breaks {
  const changed =
    (change: (header: string, scheme: string, credential: string) => string | string[]): Make =>
    async (world, door) => {
      const { authorization, ...rest } = await sound(world, door)
      const header = String(authorization)
      const space = header.indexOf(' ')
      const parts = [header.slice(0, space), header.slice(space + 1)] as const
      return { ...rest, authorization: change(header, ...parts) }
    }
  const moved =
    (
      move: (header: string) => {
        query?: Record<string, string>
        headers?: Record<string, string>
      },
    ): Make =>
    async (world, door) => {
      const { authorization, ...rest } = await sound(world, door)
      return { ...rest, ...move(String(authorization)) }
    }
  return {
    ...breaksOf({
      'an empty header': changed(() => ''),
      'a header of blanks': changed(() => '   '),
      'the scheme alone': changed((_, scheme) => scheme),
      'the scheme and blanks': changed((_, scheme) => `${scheme}    `),
      'no scheme': changed((_, _scheme, credential) => credential),
      ...otherSchemes(sound),
      'a scheme that nobody knows': changed((_, _scheme, credential) => `Token ${credential}`),
      'the scheme twice': changed((header, scheme) => `${scheme} ${header}`),
      'a tab after the scheme': changed((_, scheme, credential) => `${scheme}\t${credential}`),
      'a colon after the scheme': changed((_, scheme, credential) => `${scheme}: ${credential}`),
      'quotation marks': changed((_, scheme, credential) => `${scheme} "${credential}"`),
      'a comma at the end': changed((header) => `${header},`),
      'a parameter at the end': changed((header) => `${header}, realm="stratos"`),
      'a word at the end': changed((header) => `${header} more`),
      'a letter that is not ASCII': changed((header) => `${header}\u00e9`),
      'the header twice': changed((header) => [header, header]),
      'an empty header after it': changed((header) => [header, '']),
      'an empty header before it': changed((header) => ['', header]),
      'another credential after it': changed((header) => [header, 'Bearer other']),
      'another credential before it': changed((header) => ['Bearer other', header]),
      'its first half': changed((header) => header.slice(0, header.length / 2)),
      'all but its last character': changed((header) => header.slice(0, -1)),
      'another last character': changed((header) => header.slice(0, -1) + other(header.slice(-1))),
      'the credential twice': changed((header, _, credential) => header + credential),
    }),
    ...breaksOf(
      {
        'its place in the query': moved((header) => ({
          query: { access_token: credentialOf(header), authorization: header },
        })),
        'its place in another header': moved((header) => ({
          headers: { 'proxy-authorization': header, 'x-authorization': header },
        })),
        'its place in a cookie': moved((header) => ({
          headers: { cookie: `stratos-session=${credentialOf(header)}` },
        })),
      },
      'anonymous',
    ),
  }
}

function credentialOf(header: string): string {
  return header.slice(header.indexOf(' ') + 1)
}

function other(character: string): string {
  return character === 'A' ? 'Q' : 'A'
}

/** One kind of credential is not another, whatever it is called. */
function otherSchemes(sound: Make): Readonly<Record<string, Make>> {
  const renamed =
    (scheme: string, isProven: boolean): Make =>
    async (world, door) => {
      const { authorization, ...rest } = await sound(world, door)
      const [own = '', token = ''] = String(authorization).split(' ', 2)
      const name = own === scheme ? 'Token' : scheme
      const sent = { ...rest, authorization: `${name} ${token}` }
      if (!isProven) return sent
      const dpop = await proofFor(world, door, { key: world.foreignApp, token })
      return { ...sent, headers: { ...rest.headers, dpop } }
    }
  return {
    'the scheme Basic': renamed('Basic', false),
    'the scheme Bearer': renamed('Bearer', false),
    'the scheme DPoP': renamed('DPoP', false),
    'the scheme DPoP and a proof': renamed('DPoP', true),
  }
}
