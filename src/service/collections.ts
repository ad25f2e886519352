import { parseNsid } from '../atproto/syntax.ts'

/** The record on the PDS that points to this service. */
export const enrollmentCollection = parseNsid('zone.stratos.actor.enrollment')

/** Collections that hold private records. */
export const privateCollections = [parseNsid('zone.stratos.feed.post')]
