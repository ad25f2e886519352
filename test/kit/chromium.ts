import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

/** Where the Chromium of this machine is, if it has one. */
export function findChromium(): string | undefined {
  const named = process.env['STRATOS_TEST_CHROMIUM']
  if (named !== undefined) return named
  const usual = '/usr/bin/chromium'
  return existsSync(usual) ? usual : (Bun.which('chromium') ?? undefined)
}

/** Starts it without a window, and without the calls home that it makes by itself. */
export function launchChromium(executablePath: string | undefined): Promise<Browser> {
  if (executablePath === undefined) throw new Error('no Chromium is installed')
  return chromium.launch({
    executablePath,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}
