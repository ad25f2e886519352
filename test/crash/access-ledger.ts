/** Names of boundaries in effect; empty where nothing is to be seen. */
type Boundaries = readonly string[]

/** What was not answered may have been done, or not. */
export type Outcome = 'done' | 'refused' | 'unanswered'

/** What was in effect for a while, as far as somebody outside can know. */
interface State {
  readonly boundaries: Boundaries
  /** It may have been in effect from then on. Milliseconds since the epoch, as all times here. */
  readonly fromMs: number
  /** The one before it was in effect until then at most. */
  certainMs: number
}

/** What happened to one thing, in order: a post, or somebody's membership. */
class History {
  readonly #states: State[]

  constructor(boundaries: Boundaries) {
    this.#states = [{ boundaries, fromMs: -Infinity, certainMs: -Infinity }]
  }

  add(state: State): void {
    this.#states.push(state)
  }

  /** It did not come about. */
  drop(state: State): void {
    this.#states.splice(this.#states.indexOf(state), 1)
  }

  /** What may have been in effect at some time of a span. */
  within(from: number, to: number): { boundaries: Boundaries; from: number; to: number }[] {
    return this.#states.flatMap(({ boundaries, fromMs }, at) => {
      // One that was never answered ends nothing.
      const untilMs = Math.min(...this.#states.slice(at + 1).map(({ certainMs }) => certainMs))
      const span = { from: Math.max(fromMs, from), to: Math.min(untilMs, to) }
      return span.from <= span.to ? [{ boundaries, ...span }] : []
    })
  }
}

/**
 * Who may see what, and until when they may still have been shown it. A change counts as possible from
 * when it was asked for, and as certain from when it was answered.
 */
export class AccessLedger {
  readonly #posts = new Map<string, History>()
  readonly #viewers = new Map<string, History>()

  viewer(did: string, boundaries: Boundaries): void {
    this.#viewers.set(did, new History(boundaries))
  }

  /** Does something that changes who may see it. */
  async change(
    of: { readonly post: string } | { readonly viewer: string },
    boundaries: Boundaries,
    task: () => Promise<Outcome>,
  ): Promise<Outcome> {
    const history = this.#historyOf(of)
    const state = { boundaries, fromMs: Date.now(), certainMs: Infinity }
    history.add(state)
    const outcome = await task()
    if (outcome === 'done') state.certainMs = Date.now()
    if (outcome === 'refused') history.drop(state)
    return outcome
  }

  /**
   * Whether a viewer may have been allowed a post by what was in effect during a span: of the post at
   * any time of it, and of the viewer at any time of it, as an index learns of each by itself.
   */
  mayHaveSeen(post: string, viewer: string, span: { from: number; to: number }): boolean {
    const seen = this.#viewers.get(viewer)?.within(span.from, span.to) ?? []
    const shown = this.#posts.get(post)?.within(span.from, span.to) ?? []
    const names = new Set(seen.flatMap(({ boundaries }) => boundaries))
    return shown.some(({ boundaries }) => boundaries.some((name) => names.has(name)))
  }

  /** What is known of a post and a viewer, for whoever looks into a failure. */
  about(post: string, viewer: string, atMs: number): object {
    const told = (history: History | undefined) =>
      history?.within(atMs - 20_000, atMs + 1_000).map(({ boundaries, from, to }) => {
        return `${boundaries.join('+') || 'none'} from ${from - atMs} to ${to - atMs}`
      })
    return { post: told(this.#posts.get(post)), viewer: told(this.#viewers.get(viewer)) }
  }

  #historyOf(of: { readonly post: string } | { readonly viewer: string }): History {
    const [histories, key] = 'post' in of ? [this.#posts, of.post] : [this.#viewers, of.viewer]
    const history = histories.get(key) ?? new History([])
    histories.set(key, history)
    return history
  }
}
