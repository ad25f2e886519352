/** Lines of what a process writes, or reads. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncIterable<string> {
  const decoder = new TextDecoder()
  const parts: string[] = []
  for await (const chunk of stream) {
    const lines = decoder.decode(chunk, { stream: true }).split('\n')
    for (const [index, part] of lines.entries()) {
      parts.push(part)
      if (index < lines.length - 1) yield parts.splice(0).join('')
    }
  }
}
