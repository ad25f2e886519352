/**
 * The count of tests in a JUnit file, as one line: `N passed, N failed[, N skipped]`. Ends with 1
 * when any failed, or when there is no file to count in. Usage: bun .ci/count.ts <file>
 */
const file = Bun.file(process.argv[2] ?? '')
const root = (await file.exists()) ? /<testsuites\b[^>]*>/.exec(await file.text())?.[0] : undefined
if (root === undefined) say('no test results were written')

const skipped = countOf('skipped')
const failed = countOf('failures') + countOf('errors')
const passed = countOf('tests') - failed - skipped
say(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
process.exitCode = passed > 0 && failed === 0 ? 0 : 1

/** An attribute of the root element sums up all suites; one that is absent counts as none. */
function countOf(name: string): number {
  return Number(new RegExp(`\\s${name}="(\\d+)"`).exec(root ?? '')?.[1] ?? 0)
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
