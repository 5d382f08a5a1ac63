import type { FailureKind, UpstreamFailure } from './upstream-failure.ts'
import type { RateLimit } from './upstream-session.ts'

/**
 * What is counted of a mirror. A hit was answered from here (a tag that the upstream only confirmed is one), a miss had to
 * be fetched; `stale` are answers that may have been out of date. `savedBytes` went to clients without having been asked
 * of the upstream for them. Every request to the upstream is counted, with the milliseconds until it began to answer.
 */
export type CountName =
  | 'manifestHits'
  | 'manifestMisses'
  | 'blobHits'
  | 'blobMisses'
  | 'stale'
  | 'savedBytes'
  | 'upstreamBytes'
  | 'requests'
  | 'requestMs'
  | 'evicted'
  | 'evictedBytes'
  | `failures.${FailureKind}`

/** A failure with its time. */
export interface NotedFailure {
  readonly at: Date
  readonly kind: FailureKind
  readonly message: string
}

/** What came together since it was last taken, by {@link MirrorStats.take}. */
export interface TakenStats {
  readonly counts: Readonly<Partial<Record<CountName, number>>>
  readonly failures: readonly NotedFailure[]
  readonly rate: (RateLimit & { readonly at: Date }) | undefined
}

const MOST_FAILURES = 20
const MOST_MESSAGE = 1_000

/** What this process counts of one mirror: for its own metrics, and for whoever adds up what all processes counted. */
export class MirrorStats {
  readonly #totals = new Map<CountName, number>()
  readonly #onAnswer: (seconds: number) => void
  #pending = new Map<CountName, number>()
  #failures: NotedFailure[] = []
  #rate: TakenStats['rate']
  #isRateNew = false

  /** @param onAnswer told how long the upstream took to begin each answer, in seconds */
  constructor(onAnswer: (seconds: number) => void = () => undefined) {
    this.#onAnswer = onAnswer
  }

  /** Since this process began. */
  get totals(): ReadonlyMap<CountName, number> {
    return this.#totals
  }

  /** What the upstream said last about our quota there. */
  get rate(): TakenStats['rate'] {
    return this.#rate
  }

  add(name: CountName, amount = 1): void {
    if (amount === 0) return
    for (const counts of [this.#totals, this.#pending]) counts.set(name, (counts.get(name) ?? 0) + amount)
  }

  /** The upstream began to answer a request. */
  answered(ms: number): void {
    this.add('requests')
    this.add('requestMs', Math.round(ms))
    this.#onAnswer(ms / 1000)
  }

  /** The upstream did not give what it was asked for. What it does not have is counted, and no failure to be listed. */
  failed({ kind, message }: UpstreamFailure): void {
    this.add(`failures.${kind}`)
    if (kind !== 'absent') this.#keep([{ at: new Date(), kind, message: message.slice(0, MOST_MESSAGE) }])
  }

  /** The upstream said what is left of our quota. */
  limited(rate: RateLimit): void {
    this.#rate = { ...rate, at: new Date() }
    this.#isRateNew = true
  }

  /** What was not taken before; undefined: nothing. */
  take(): TakenStats | undefined {
    if (this.#pending.size === 0 && this.#failures.length === 0 && !this.#isRateNew) return undefined
    const taken = {
      counts: Object.fromEntries(this.#pending),
      failures: this.#failures,
      rate: this.#isRateNew ? this.#rate : undefined,
    }
    this.#pending = new Map()
    this.#failures = []
    this.#isRateNew = false
    return taken
  }

  /** Takes back what could not be written. */
  giveBack({ counts, failures, rate }: TakenStats): void {
    for (const [name, amount] of Object.entries(counts) as [CountName, number][]) {
      this.#pending.set(name, (this.#pending.get(name) ?? 0) + amount)
    }
    const newer = this.#failures
    this.#failures = [...failures]
    this.#keep(newer)
    this.#isRateNew ||= rate !== undefined
  }

  #keep(failures: readonly NotedFailure[]): void {
    this.#failures.push(...failures)
    if (this.#failures.length > MOST_FAILURES) this.#failures = this.#failures.slice(-MOST_FAILURES)
  }
}
