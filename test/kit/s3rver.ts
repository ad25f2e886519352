import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Child } from './child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { eventually } from './wait.ts'

/** A bucket on a server of its own, on loopback. */
export interface Bucket extends AsyncDisposable {
  readonly name: string
  readonly region: string
  readonly endpoint: string
  readonly accessKey: string
  readonly secretKey: string
}

/** It takes any signature, and can neither list nor end unfinished uploads. */
export async function startS3rver(): Promise<Bucket> {
  const folder = mkdtempSync(join(tmpdir(), 'stratos-s3rver-'))
  const port = await freePort()
  const program = fileURLToPath(new URL('../../node_modules/s3rver/bin/s3rver.js', import.meta.url))
  // Its lists go on from a text that an old cipher hides.
  const node = ['node', '--openssl-legacy-provider', '--import', keepsFolders(program)]
  const options = ['--directory', folder, '--address', '127.0.0.1', '--port', String(port)].concat([
    '--allow-mismatched-signatures',
    '--configure-bucket',
    bucketName,
    '--silent',
  ])
  const server = new Child({
    command: [...node, program, ...options],
    cwd: folder,
  })
  const endpoint = `http://127.0.0.1:${port}`
  await eventually('answer of s3rver', async () => {
    if (!server.running) throw new Error(`s3rver ended\n${server.output}`)
    return await fetch(endpoint).catch(() => undefined)
  })
  return {
    name: bucketName,
    region: 'us-east-1',
    endpoint,
    accessKey: 'S3RVER',
    secretKey: 'S3RVER',
    async [Symbol.asyncDispose]() {
      await server.kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/**
 * It removes a folder that has become empty although another object is about to be written there,
 * and dies of that. @returns the address of a module after which no folder is removed
 */
function keepsFolders(program: string): string {
  const source = [
    'import { createRequire } from "node:module"',
    `createRequire(${JSON.stringify(program)})("fs-extra").rmdir = async () => {}`,
  ].join('\n')
  return `data:text/javascript,${encodeURIComponent(source)}`
}

export const bucketName = 'blobs'
