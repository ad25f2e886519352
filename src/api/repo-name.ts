import { XrpcError } from '../atproto/errors.ts'

export function repoNotFound(repo: string): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${repo} has no repo on this service`)
}
