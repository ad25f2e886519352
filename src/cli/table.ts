/** Rows under their headings, each column as wide as its widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows].map((row) => row.map(plain))
  const widths = head.map(() => 0)
  for (const line of lines) {
    for (const [index, cell] of line.entries()) {
      widths[index] = Math.max(widths[index] ?? 0, Bun.stringWidth(cell))
    }
  }
  return lines.map((line) => line.map(padded).join('  ').trimEnd()).join('\n')

  function padded(cell: string, index: number): string {
    return cell + ' '.repeat(Math.max(0, (widths[index] ?? 0) - Bun.stringWidth(cell)))
  }
}

/** Without what could move the cursor, colour or reorder the text: some of it others have chosen. */
export function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\u{fffd}')
}
