import type { Database } from '../../src/metadata/database.ts'

/** An index of which some calls are the test's own, and the others those of `db`. */
export function wrapDatabase(db: Database, own: Partial<Pick<Database, 'query' | 'transaction'>>): Database {
  return {
    driver: db.driver,
    query: (text, values) => db.query(text, values),
    transaction: work => db.transaction(work),
    changes: () => db.changes(),
    load: () => db.load(),
    close: () => db.close(),
    ...own,
  }
}
