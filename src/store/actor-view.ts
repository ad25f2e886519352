import type { View } from './actor.ts'
import { parametersFor } from './parameters.ts'
import type { SqlValue } from './sql.ts'

interface Condition {
  readonly sql: string
  readonly args: readonly SqlValue[]
}

/** The access rule as a condition over `r`; parameters are numbered from `first`. */
export function visible(view: View, first: number): Condition {
  if (view === 'all') return everything
  const shared = sharing(view.boundaries, first)
  const rest = excepting(view, first + shared.args.length)
  if (rest === everything) return shared
  return { sql: `${shared.sql} and ${rest.sql}`, args: [...shared.args, ...rest.args] }
}

/** The half of the rule that names boundaries. */
export function sharing(boundaries: 'all' | readonly string[], first: number): Condition {
  if (boundaries === 'all') return everything
  if (boundaries.length === 0) return { sql: '1 = 0', args: [] }
  const places = boundaries.map((_, index) => `$${first + index}`).join(', ')
  return {
    sql: `exists (select 1 from stratos_record_boundary v where v.boundary in (${places})
      and v.collection = r.collection and v.rkey = r.rkey)`,
    args: boundaries,
  }
}

/** The half that leaves out records, whatever their boundaries. */
export function excepting(view: View, first: number): Condition {
  const except = view === 'all' ? [] : (view.except ?? [])
  if (except.length === 0) return everything
  const { places, args } = parametersFor(except, first)
  return { sql: `r.uri not in (${places.join(', ')})`, args }
}

const everything: Condition = { sql: '1 = 1', args: [] }
