import { lexiconDocs } from './schemas.macro.ts' with { type: 'macro' }

/**
 * Every lexicon document that the program checks against, embedded when this file is read or
 * bundled. Documents of `com.atproto` that only a method's name leads to are listed here; whatever
 * our own lexicons refer to comes along by itself.
 */
export const schemaDocs = lexiconDocs([
  'com.atproto.admin.getSubjectStatus',
  'com.atproto.admin.updateSubjectStatus',
  'com.atproto.repo.applyWrites',
  'com.atproto.repo.createRecord',
  'com.atproto.repo.deleteRecord',
  'com.atproto.repo.describeRepo',
  'com.atproto.repo.getRecord',
  'com.atproto.repo.listMissingBlobs',
  'com.atproto.repo.listRecords',
  'com.atproto.repo.putRecord',
  'com.atproto.repo.uploadBlob',
  'com.atproto.sync.getBlob',
  'com.atproto.sync.getLatestCommit',
  'com.atproto.sync.getRecord',
  'com.atproto.sync.getRepo',
  'com.atproto.sync.getRepoStatus',
  'com.atproto.sync.listBlobs',
])
