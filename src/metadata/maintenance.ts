import type { Queryable, Transaction } from './database.ts'

/** Work that walks the whole registry: one run of each at a time, over all processes. */
export type WorkName = 'collection' | 'consistency' | 'verification'

/** How a piece of work stands; of its last run where none is under way. */
export interface WorkRow {
  /** Counts the runs, from 1; 0 before the first. */
  readonly run: number
  readonly requested: boolean
  readonly started_at: Date | null
  /** Null while a run is under way. */
  readonly finished_at: Date | null
  /** Whether a process is at it now. */
  readonly busy: boolean
  readonly cursor: unknown
  readonly progress: unknown
  /** Why the last turn of the run ended before its end, in words. */
  readonly failure: string | null
}

const UNDER_WAY = 'started_at is not null and finished_at is null'

/** How a piece of work stands, or undefined where nobody ever asked for it. */
export async function findWork(db: Queryable, name: WorkName): Promise<WorkRow | undefined> {
  const rows = await db.query<WorkRow>(
    `select run, requested, started_at, finished_at, cursor, progress, failure,
            coalesce(lease_until > clock_timestamp(), false) as busy
       from maintenance where name = $1`,
    [name],
  )
  return rows[0]
}

/** Asks for a run. Answers its number: that of the run under way, where there is one. */
export async function requestWork(tx: Transaction, name: WorkName): Promise<number> {
  const rows = await tx.query<{ run: number }>(
    `insert into maintenance as m (name, requested) values ($1, true)
     on conflict (name) do update set requested = not (m.${UNDER_WAY.replace(' and ', ' and m.')})
     returning case when ${UNDER_WAY} then run else run + 1 end as run`,
    [name],
  )
  return rows[0]?.run ?? 0
}

/** A run that the caller has, until its lease ends. */
export interface TakenWork {
  readonly run: number
  readonly cursor: unknown
  readonly progress: unknown
}

/**
 * Takes a piece of work for `holder`, where no process has it and there is something to do: a run that is under way, one
 * that was asked for, or one that is due because the last ended `everyMs` ago (undefined: only on request; the first is
 * due that long after the first look).
 */
export async function takeWork(
  tx: Transaction,
  take: {
    readonly name: WorkName
    readonly holder: string
    readonly leaseMs: number
    readonly everyMs: number | undefined
  },
): Promise<TakenWork | undefined> {
  await tx.query('insert into maintenance (name) values ($1) on conflict (name) do nothing', [take.name])
  const rows = await tx.query<TakenWork>(
    `with free as (
       select name, ${UNDER_WAY} as under_way from maintenance
        where name = $1 and (lease_until is null or lease_until < clock_timestamp())
          and (${UNDER_WAY} or requested
               or finished_at < clock_timestamp() - $4::float8 * interval '1 millisecond')
          for update skip locked)
     update maintenance m
        set holder = $2, lease_until = clock_timestamp() + $3 * interval '1 millisecond', requested = false,
            failure = null, finished_at = null,
            run = case when under_way then run else run + 1 end,
            started_at = case when under_way then started_at else clock_timestamp() end,
            cursor = case when under_way then cursor end,
            progress = case when under_way then progress end
       from free where m.name = free.name
     returning m.run, m.cursor, m.progress`,
    [take.name, take.holder, take.leaseMs, take.everyMs ?? null],
  )
  return rows[0]
}

/** Records how far a run is, and goes on holding it. False when it is another's by now. */
export async function keepWork(
  tx: Transaction,
  keep: {
    readonly name: WorkName
    readonly holder: string
    readonly leaseMs: number
    readonly cursor: unknown
    readonly progress: unknown
  },
): Promise<boolean> {
  const rows = await tx.query(
    `update maintenance set lease_until = clock_timestamp() + $3 * interval '1 millisecond', cursor = $4, progress = $5
      where name = $1 and holder = $2 returning name`,
    [keep.name, keep.holder, keep.leaseMs, JSON.stringify(keep.cursor), JSON.stringify(keep.progress)],
  )
  return rows.length === 1
}

/** Lets go of a run, if it is still ours: at its end, or with `failure` for the next turn to go on with. */
export async function releaseWork(
  tx: Transaction,
  release: {
    readonly name: WorkName
    readonly holder: string
    readonly isFinished: boolean
    readonly failure: string | undefined
  },
): Promise<void> {
  await tx.query(
    `update maintenance set holder = null, lease_until = null, failure = $4,
            finished_at = case when $3 then clock_timestamp() end
      where name = $1 and holder = $2`,
    [release.name, release.holder, release.isFinished, release.failure ?? null],
  )
}
