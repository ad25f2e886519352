/**
 * The count of tests in JUnit files, as one line: `N passed, N failed[, N skipped]`. Ends with 1
 * when any failed, or when a file has nothing to count. Usage: bun .ci/count.ts <file...>
 */
const roots = await Promise.all(process.argv.slice(2).map(rootOf))
const missing = roots.filter((root) => root === undefined).length
if (missing > 0 || roots.length === 0) say(`${missing} files have no test results`)

const skipped = countOf('skipped')
const failed = countOf('failures') + countOf('errors')
const passed = countOf('tests') - failed - skipped
say(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
process.exitCode = passed > 0 && failed === 0 && missing === 0 ? 0 : 1

/** The element that sums up all suites of a file. */
async function rootOf(path: string): Promise<string | undefined> {
  const file = Bun.file(path)
  return (await file.exists()) ? /<testsuites\b[^>]*>/.exec(await file.text())?.[0] : undefined
}

/** One that is absent counts as none. */
function countOf(name: string): number {
  const attribute = new RegExp(`\\s${name}="(\\d+)"`)
  return roots.reduce((sum, root) => sum + Number(attribute.exec(root ?? '')?.[1] ?? 0), 0)
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
