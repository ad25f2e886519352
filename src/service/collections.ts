import { parseNsid } from '../atproto/syntax.ts'

/** The record on the PDS that points to this service. */
export const enrollmentCollection = parseNsid('zone.stratos.actor.enrollment')

/** Collections that hold private records. */
export const privateCollections = [parseNsid('zone.stratos.feed.post')]

/** Collections of a person's public repo that this service writes to: stubs stand in the private ones. */
export const publicCollections = [enrollmentCollection, ...privateCollections]
