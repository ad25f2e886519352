import { createHash } from 'node:crypto'
import { bundle } from '../lib/embed.macro.ts' with { type: 'macro' }

/** A file that our pages load. */
interface Asset {
  readonly type: string
  readonly text: string
}

const script: Asset = {
  type: 'text/javascript; charset=utf-8',
  text: bundle('src/page/main.ts'),
}
const style: Asset = {
  type: 'text/css; charset=utf-8',
  text: bundle('src/page/page.css'),
}
/** Layers, one upon the other, on a ground that shows on light and dark alike. */
const icon: Asset = {
  type: 'image/svg+xml',
  text:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" ' +
    'rx="7" fill="#1d5f73"/><g fill="none" stroke="#fff" stroke-width="2.4" stroke-linejoin="round" ' +
    'stroke-linecap="round"><path d="m16 7 9 4.6-9 4.6-9-4.6z"/><path d="m7 16.4 9 4.6 9-4.6"/>' +
    '<path d="m7 21.2 9 4.6 9-4.6"/></g></svg>',
}

/** Where pages find their files; the address changes with the content. */
export const assetPaths = {
  script: versioned('/page.js', script),
  style: versioned('/page.css', style),
  icon: versioned('/page.svg', icon),
} as const

/** Answers for these files, by path. */
export const assets: Readonly<Record<string, () => Response>> = {
  '/page.js': () => serve(script),
  '/page.css': () => serve(style),
  '/page.svg': () => serve(icon),
}

function versioned(path: string, { text }: Asset): string {
  return `${path}?v=${createHash('sha256').update(text).digest('hex').slice(0, 12)}`
}

function serve({ text, type }: Asset): Response {
  return new Response(text, {
    headers: {
      'content-type': type,
      'cache-control': 'public, max-age=3600',
      'cross-origin-resource-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
    },
  })
}
