/**
 * The PostgreSQL that we run ourselves cannot be started as things are. Its message is for operators
 * and ends in what to do.
 */
export class ServerFailed extends Error {
  override readonly name = 'ServerFailed'
}

export const ownServerHint = 'set STRATOS_INDEX_POSTGRES_URL to a PostgreSQL that runs already'
