import { acceptedByDefault, type CredentialKind } from '../../src/api/caller.ts'
import { importRepo, withCar } from '../kit/import.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import type { Refusal } from '../kit/refusal.ts'
import { getStatus, recordSubject, updateStatus } from '../kit/takedown.ts'
import type { Call } from '../kit/xrpc.ts'
import { type Actor, ownRkey, type World } from './world.ts'

/**
 * Whom a sound credential names, and whom the call is about: `self` is about itself, everybody else
 * about a member who is in one boundary with `other`. A stranger is enrolled nowhere.
 */
export type Caller = 'anonymous' | 'self' | 'other' | 'stranger' | 'appview' | 'moderator' | 'admin'

/** `reads`: 200 with the record's text in it; `passes`: 200 without. */
export type Outcome = 'reads' | 'passes' | Refusal

/** A method, or one of our own pages, and what it says to each caller. */
export interface Door {
  readonly inClass: DoorClass
  /** An NSID; of a page, its path. */
  readonly name: string
  readonly path: string
  readonly accepts: readonly CredentialKind[]
  /** It takes each service-auth token once. */
  readonly isOnce: boolean
  /** It ends a membership, and with it what else opens methods. */
  readonly isExit: boolean
  readonly answers: Readonly<Record<Caller, Outcome>>
  call(subject: Actor, world: World): Call
}

export const doorClasses = [
  'public',
  'optional',
  'appview',
  'user',
  'session',
  'owner',
  'stream',
  'moderation',
  'admin',
  'page',
  'once',
] as const
export type DoorClass = (typeof doorClasses)[number]

type Row = Readonly<Record<Caller, Outcome>>
type Calls = Readonly<Record<string, Door['call']>>

interface Methods {
  readonly answers: Row
  /** Absent: whatever opens methods in general. */
  readonly accepts?: readonly CredentialKind[]
  readonly calls: Calls
}

const unnamed: Refusal = [401, 'AuthMissing']
const forbidden: Refusal = [403, 'Forbidden']
const noRecord: Refusal = [404, 'RecordNotFound']
const noBlob: Refusal = [404, 'BlobNotFound']
const noRepo: Refusal = [404, 'RepoNotFound']
const noUpgrade: Refusal = [426, 'UpgradeRequired']
const notEnrolled: Refusal = [403, 'NotEnrolled']
const hasRecords: Refusal = [409, 'RepoAlreadyExists']

const allPass = everybody('passes')
const none: Row = { ...everybody(forbidden), anonymous: unnamed }
const operator: Row = { ...none, admin: 'passes' }
const owner: Row = { ...none, self: 'passes' }
const moderation: Row = { ...operator, moderator: 'passes' }
/** What is about whoever calls. */
const person: Row = { ...owner, other: 'passes', stranger: 'passes', moderator: 'passes' }
const member: Row = { ...person, stranger: notEnrolled, moderator: notEnrolled }

/** Every method of the service stands here once. Within a class the destructive ones come last. */
const classes: Readonly<Record<DoorClass, readonly Methods[]>> = {
  public: [{ answers: allPass, calls: { 'zone.stratos.server.listDomains': () => ({}) } }],
  optional: [
    {
      answers: allPass,
      calls: {
        'zone.stratos.enrollment.status': aboutSubject,
        'zone.stratos.identity.resolveEnrollments': aboutSubject,
      },
    },
    {
      answers: readers(noRecord, 'reads'),
      calls: twins({ getRecord: ({ did }) => ({ params: { ...placeOf(did), rkey: ownRkey } }) }),
    },
    {
      answers: readers('passes', 'reads'),
      calls: twins({ listRecords: ({ did }) => ({ params: placeOf(did) }) }),
    },
    {
      answers: readers(noRepo, 'passes'),
      calls: twins({ describeRepo: ({ did }) => ({ params: { repo: did } }) }),
    },
    { answers: readers(noBlob, 'reads'), calls: twins({ getBlob: ownBlob }, 'sync') },
    {
      answers: { ...readers(noBlob, 'passes'), admin: forbidden },
      calls: { 'zone.stratos.sync.getBlobUrl': ownBlob },
    },
  ],
  appview: [
    {
      answers: readers(noRecord, 'reads'),
      calls: {
        'zone.stratos.repo.hydrateRecord': (subject) => ({ params: { uri: uriOf(subject) } }),
      },
    },
    {
      answers: readers('passes', 'reads'),
      calls: {
        'zone.stratos.repo.hydrateRecords': (subject) => ({ input: { uris: [uriOf(subject)] } }),
      },
    },
  ],
  user: [
    {
      answers: owner,
      calls: twins({
        createRecord: ({ did }, world) => ({ input: { ...placeOf(did), record: post(world) } }),
        putRecord: ({ did }, world) => ({
          input: { ...placeOf(did), rkey: 'put', record: post(world) },
        }),
        applyWrites: ({ did }, world) => {
          const $type = 'com.atproto.repo.applyWrites#create'
          const write = { $type, collection: postCollection, value: post(world) }
          return { input: { repo: did, writes: [write] } }
        },
      }),
    },
    {
      answers: member,
      calls: twins({
        uploadBlob: (_, { marker }) => ({
          body: `${marker}, uploaded`,
          headers: { 'content-type': 'text/plain' },
        }),
      }),
    },
    {
      answers: { ...person, stranger: noRepo, moderator: noRepo },
      calls: { 'com.atproto.repo.listMissingBlobs': () => ({}) },
    },
    {
      answers: person,
      calls: {
        'zone.stratos.server.listKeys': () => ({}),
        'zone.stratos.server.unbindKey': (_, { spareKey }) => ({
          input: { jkt: spareKey.thumbprint },
        }),
      },
    },
  ],
  session: [
    {
      answers: person,
      accepts: ['session'],
      calls: {
        'zone.stratos.server.getSession': () => ({}),
        'zone.stratos.server.deleteSession': () => ({ verb: 'POST' }),
      },
    },
  ],
  owner: [
    {
      answers: { ...none, self: 'reads', appview: 'reads', admin: 'reads' },
      // Here are no stubs: a proof is for those who see whole repos.
      calls: twins({ getRepo: aboutSubject, getRecord: provenRecord }, 'sync'),
    },
    {
      answers: { ...owner, appview: 'passes', admin: 'passes' },
      calls: {
        ...twins(
          { getLatestCommit: aboutSubject, getRepoStatus: aboutSubject, listBlobs: aboutSubject },
          'sync',
        ),
        'zone.stratos.repo.listMissingBlobs': aboutSubject,
      },
    },
    {
      answers: { ...none, self: 'reads', appview: 'reads', admin: 'reads' },
      calls: { 'zone.stratos.sync.listRepoOps': aboutSubject },
    },
    {
      answers: owner,
      calls: twins({ deleteRecord: ({ did }) => ({ input: { ...placeOf(did), rkey: ownRkey } }) }),
    },
  ],
  stream: [
    {
      // Whoever may pass is told that this is no WebSocket.
      answers: { ...none, self: noUpgrade, appview: noUpgrade, admin: noUpgrade },
      calls: { 'zone.stratos.sync.subscribeRecords': aboutSubject },
    },
  ],
  moderation: [
    {
      answers: moderation,
      calls: {
        [getStatus]: aboutSubject,
        [updateStatus]: (subject) => ({
          input: {
            subject: recordSubject({ uri: uriOf(subject), cid: anyCid }),
            takedown: { applied: true },
          },
        }),
      },
    },
  ],
  admin: [
    {
      answers: operator,
      calls: {
        'zone.stratos.admin.listMembers': () => ({}),
        'zone.stratos.admin.listBoundaries': () => ({}),
        'zone.stratos.admin.listOutbox': () => ({}),
        'zone.stratos.admin.addBoundary': changeOf('c'),
        'zone.stratos.admin.removeBoundary': changeOf('a'),
        'zone.stratos.admin.setBoundaries': ({ did }) => ({ input: { did, boundaries: [] } }),
        'zone.stratos.admin.revokeSessions': ({ did }) => ({ input: { did } }),
        'zone.stratos.admin.rotateSessionSecret': () => ({ verb: 'POST' }),
      },
    },
    {
      // A service without https has no key to rotate, and tells the operator so.
      answers: { ...operator, admin: [400, 'InvalidRequest'] },
      calls: { 'zone.stratos.admin.rotateOauthKey': () => ({ verb: 'POST' }) },
    },
    {
      answers: operator,
      calls: { 'zone.stratos.admin.unenroll': ({ did }) => ({ input: { did } }) },
    },
  ],
  page: [
    {
      answers: person,
      accepts: ['session', 'dpop-token', 'bound-key', 'cookie'],
      calls: { '/oauth/status': () => ({}) },
    },
    { answers: person, accepts: ['cookie'], calls: { '/oauth/signout': change } },
    {
      answers: person,
      accepts: ['session', 'dpop-token', 'cookie'],
      calls: { '/oauth/revoke': change },
    },
  ],
  // These take each service-auth token once.
  once: [
    {
      answers: member,
      accepts: ['service-auth', 'cookie', 'development'],
      // By a cookie a call counts like a change on our own pages.
      calls: {
        'zone.stratos.server.createSession': (_, { stratos }) => ({
          verb: 'POST',
          headers: { origin: stratos.url, 'content-type': 'application/json' },
        }),
      },
    },
    {
      answers: member,
      accepts: ['service-auth'],
      calls: {
        'zone.stratos.server.bindKey': (_, { spareKey }) => ({
          input: { jkt: spareKey.thumbprint },
        }),
      },
    },
    {
      // Whoever may import comes as far as that there are records already.
      answers: { ...member, self: hasRecords, other: hasRecords },
      accepts: ['service-auth', 'session', 'dpop-token', 'development'],
      calls: { [importRepo]: () => withCar('no CAR') },
    },
    {
      // Whoever is enrolled nowhere may leave, too.
      answers: person,
      accepts: ['service-auth', 'session', 'dpop-token', 'development'],
      calls: { 'zone.stratos.enrollment.unenroll': () => ({ verb: 'POST' }) },
    },
  ],
}

/** In the order in which a sound credential may call them. */
export const doors: readonly Door[] = doorClasses.flatMap((inClass) =>
  classes[inClass].flatMap(({ answers, accepts = acceptedByDefault, calls }) =>
    Object.entries(calls).map(([name, call]) => ({
      inClass,
      name,
      path: name.startsWith('/') ? name : `/xrpc/${name}`,
      accepts,
      isOnce: inClass === 'once',
      isExit: /enrollment\.unenroll$|revoke$/.test(name),
      answers,
      call,
    })),
  ),
)

/** The key that the calls of bindKey bind. */
export function bindsKey({ name }: Door): boolean {
  return name.endsWith('.bindKey')
}

function everybody(outcome: Outcome): Row {
  return {
    anonymous: outcome,
    self: outcome,
    other: outcome,
    stranger: outcome,
    appview: outcome,
    moderator: outcome,
    admin: outcome,
  }
}

function readers(hidden: Outcome, shown: Outcome): Row {
  return { ...everybody(hidden), self: shown, other: shown, appview: shown, admin: shown }
}

/** The same methods under the names of the PDS and under our own, which are methods of their own. */
function twins(calls: Calls, group: 'repo' | 'sync' = 'repo'): Calls {
  return Object.fromEntries(
    ['zone.stratos', 'com.atproto'].flatMap((prefix) =>
      Object.entries(calls).map(([name, call]) => [`${prefix}.${group}.${name}`, call]),
    ),
  )
}

function aboutSubject({ did }: Actor): Call {
  return { params: { did } }
}

function ownBlob({ did }: Actor, { blob }: World): Call {
  return { params: { did, cid: blob } }
}

function provenRecord({ did }: Actor): Call {
  return { params: { did, collection: postCollection, rkey: ownRkey } }
}

function changeOf(bare: string): Door['call'] {
  return ({ did }, { stratos }) => ({ input: { did, boundary: stratos.boundary(bare) } })
}

function change(_: Actor, { stratos }: World): Call {
  return { input: {}, headers: { origin: stratos.url } }
}

function placeOf(repo: string) {
  return { repo, collection: postCollection }
}

function uriOf({ did }: Actor): string {
  return `at://${did}/${postCollection}/${ownRkey}`
}

function post({ marker, stratos }: World) {
  return privatePost(marker, [stratos.boundary('a')])
}

const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
