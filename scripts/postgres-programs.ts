import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const OLDEST = 14
const INSTALLED = '/usr/lib/postgresql'

/** Where the programs of the newest Postgres lie. @throws with what to install where there is none. */
export function postgresPrograms(): string {
  let versions: number[] = []
  try {
    versions = readdirSync(INSTALLED).map(Number)
  } catch {
    // Not installed: reported below.
  }
  const newest = Math.max(0, ...versions.filter(version => version >= OLDEST))
  if (newest > 0) return join(INSTALLED, String(newest), 'bin')
  throw new Error(`no Postgres ${OLDEST} or newer under ${INSTALLED}; on Debian: apt-get install postgresql`)
}
