import type { Database, Queryable, Row, Transaction } from '../metadata/database.ts'
import type { Metrics } from './metrics.ts'

/** What a statement may be counted as; comes from our own texts, so the set is small. */
const KINDS = new Set(['select', 'insert', 'update', 'delete', 'with'])

/** The index with its statements and transactions counted and timed. */
export function meteredDatabase(db: Database, metrics: Metrics): Database {
  metrics.watchIndex(() => db.load())
  const statement = queryOf(db, metrics)
  return {
    driver: db.driver,
    query: statement,
    transaction: work =>
      timed(metrics, 'transaction', () =>
        db.transaction(tx => work({ query: queryOf(tx, metrics), script: text => tx.script(text) } as Transaction)),
      ),
    changes: () => db.changes(),
    load: () => db.load(),
    close: () => db.close(),
  }
}

function queryOf(on: Queryable, metrics: Metrics): Queryable['query'] {
  return <R extends object = Row>(text: string, values?: readonly unknown[]) =>
    timed(metrics, kindOf(text), () => on.query<R>(text, values))
}

function kindOf(text: string): string {
  const word = /[a-z]+/i.exec(text)?.[0].toLowerCase() ?? ''
  return KINDS.has(word) ? word : 'other'
}

async function timed<T>(metrics: Metrics, kind: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now()
  let isFailure = true
  try {
    const outcome = await work()
    isFailure = false
    return outcome
  } finally {
    metrics.observeIndex(kind, (performance.now() - started) / 1000, isFailure)
  }
}
