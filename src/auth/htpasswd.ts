import { isReserved } from './identity.ts'

/** The users of an htpasswd file. */
export interface Htpasswd {
  /** bcrypt hashes by name. */
  readonly hashes: ReadonlyMap<string, string>
  /** Of the costliest of them. */
  readonly highestCost: number
}

/** An htpasswd file that cannot be used; `message` says why, line by line. */
export class HtpasswdFault extends Error {
  override readonly name = 'HtpasswdFault'
}

const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/
/** A cost more doubles the time: 14 takes about a second, 31 about a day. */
const MAX_COST = 14
const MIN_COST = 4
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$/
const MAX_FAULTS_SHOWN = 10

/**
 * Reads an htpasswd file, a user a line (`name:hash`); empty lines and those that begin with `#` are passed over. As in
 * registry:2 only bcrypt counts (`htpasswd -B`): the other formats of the file are too cheap to guess.
 * @throws HtpasswdFault with every line that is wrong; none of them shows a hash.
 */
export function parseHtpasswd(text: string): Htpasswd {
  const hashes = new Map<string, string>()
  const faults: string[] = []
  let highest = MIN_COST
  for (const [index, line] of text
    .split('\n')
    .map(raw => raw.trim())
    .entries()) {
    if (line === '' || line.startsWith('#')) continue
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0))
    const hash = line.slice(colon + 1)
    const fault = colon < 0 ? 'is not NAME:HASH' : (nameFault(name, hashes) ?? hashFault(name, hash))
    if (fault === undefined) hashes.set(name, hash)
    else faults.push(`line ${index + 1} ${fault}`)
    highest = Math.max(highest, fault === undefined ? costOf(hash) : 0)
  }
  if (faults.length > 0) throw new HtpasswdFault(summary(faults))
  return { hashes, highestCost: highest }
}

/**
 * What a password is to be compared with, one after the other until one fits, so that a wrong one costs the same for every
 * name: the hash of the name, where it has one, and then decoys, which are hashes of no password. A cost more doubles the
 * rounds, so those of costs c, c+1, …, h-1 after one of cost c make those of one of cost h.
 */
export function hashesToCompare({ highestCost }: Htpasswd, hash: string | undefined): readonly [string, ...string[]] {
  if (hash === undefined) return [decoyOf(highestCost)]
  const decoys: string[] = []
  for (let cost = costOf(hash); cost < highestCost; cost += 1) decoys.push(decoyOf(cost))
  return [hash, ...decoys]
}

function decoyOf(cost: number): string {
  return `$2b$${String(cost).padStart(2, '0')}$${'a'.repeat(53)}`
}

function nameFault(name: string, known: ReadonlyMap<string, string>): string | undefined {
  if (!NAME.test(name)) return 'names a user by other than 1 to 100 characters of A-Z a-z 0-9 . _ @ -'
  if (isReserved(name)) return `names ${name}, which is the name of no single user`
  return known.has(name) ? `names ${name} a second time` : undefined
}

function hashFault(name: string, hash: string): string | undefined {
  if (!BCRYPT.test(hash)) return `has no bcrypt hash for ${name}: make one with htpasswd -B`
  const cost = costOf(hash)
  if (cost >= MIN_COST && cost <= MAX_COST) return undefined
  return `has a bcrypt hash of cost ${cost} for ${name}: ${MIN_COST} to ${MAX_COST} can be used`
}

function costOf(hash: string): number {
  return Number(BCRYPT.exec(hash)?.[1])
}

function summary(faults: readonly string[]): string {
  const more = faults.length - MAX_FAULTS_SHOWN
  return [...faults.slice(0, MAX_FAULTS_SHOWN), ...(more > 0 ? [`${more} more lines are wrong`] : [])].join('; ')
}
