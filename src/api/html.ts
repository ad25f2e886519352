/** Markup that is safe to show: whatever text went into it was escaped. `html` alone makes it. */
class Html {
  readonly #markup: string

  constructor(markup: string) {
    this.#markup = markup
  }

  toString(): string {
    return this.#markup
  }
}

export type { Html }

/** What stands between the parts of a template; nothing is shown for `undefined`. */
type Inset = Html | readonly Html[] | string | undefined

/** Markup in which every text that is put in is text, also between the quotes of an attribute. */
export function html(parts: TemplateStringsArray, ...insets: readonly Inset[]): Html {
  return new Html(parts.reduce((whole, part, index) => whole + shown(insets[index - 1]) + part))
}

function shown(inset: Inset): string {
  if (inset === undefined) return ''
  if (inset instanceof Html) return inset.toString()
  return typeof inset === 'string' ? escape(inset) : inset.map(String).join('')
}

function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}
