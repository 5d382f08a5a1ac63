import { type RoundRobin, startRoundRobin } from './round-robin.ts'
import { type TestServer, createDatabase, startServer } from './server.ts'

/** Two processes that share a database and a bucket and nothing else, and a load balancer before them. */
export interface Cluster {
  readonly one: TestServer
  readonly two: TestServer
  /** Gives every request to the other process. */
  readonly proxy: RoundRobin
  readonly databaseUrl: string
  /** Starts a third process, or the first anew, with settings added. */
  another(env?: Readonly<Record<string, string>>): Promise<TestServer>
  /** Stops everything that still runs and removes the database. */
  stop(): Promise<void>
}

/** Starts two processes on Postgres with these settings. @throws Error where BERTH_TEST_POSTGRES names no server. */
export async function startCluster(env: Readonly<Record<string, string>>): Promise<Cluster> {
  const database = await createDatabase()
  if (database === undefined) throw new Error('BERTH_TEST_POSTGRES is missing: run this by scripts/with-postgres.ts')
  const started: TestServer[] = []
  const another = async (more: Readonly<Record<string, string>> = {}): Promise<TestServer> => {
    const server = await startServer({ databaseUrl: database.url, env: { ...env, ...more } })
    started.push(server)
    return server
  }
  const stop = async (): Promise<void> => {
    try {
      await Promise.all(started.map(server => server.stop()))
    } finally {
      await database.drop()
    }
  }
  try {
    const [one, two] = await Promise.all([another(), another()])
    const proxy = await startRoundRobin([one.url, two.url])
    return {
      one,
      two,
      proxy,
      databaseUrl: database.url,
      another,
      async stop() {
        await proxy.close()
        await stop()
      },
    }
  } catch (error) {
    await stop()
    throw error
  }
}
