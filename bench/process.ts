import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

const TICKS_PER_SECOND = 100
const KIB = 1024

/** Fields 3 and later of /proc/PID/stat: the program's name before them may hold anything. */
function statFields(pid: number | 'self'): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

function ticks(fields: readonly string[], from: number, to: number): number {
  return fields.slice(from, to).reduce((sum, field) => sum + Number(field), 0)
}

function attempt<T>(read: () => T, otherwise: T): T {
  try {
    return read()
  } catch {
    return otherwise // a process that ended meanwhile
  }
}

/** Seconds of CPU that these processes have used, with those of their children that have ended. */
export function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + attempt(() => ticks(statFields(pid), 11, 15), 0), 0) / TICKS_PER_SECOND
}

/** The process and all that descend from it now. */
export function withDescendants(root: number): number[] {
  const parents = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(name => ({ pid: Number(name), parent: attempt(() => Number(statFields(Number(name))[1]), 0) }))
  const found = [root]
  for (const pid of found) found.push(...parents.filter(({ parent }) => parent === pid).map(child => child.pid))
  return found
}

function statusBytes(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const line = attempt(() => readFileSync(`/proc/${pid}/status`, 'utf8'), '')
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(line)?.[1] ?? 0) * KIB
}

/** Bytes of memory resident now. */
export function residentBytes(pid: number): number {
  return statusBytes(pid, 'VmRSS')
}

/** The most bytes that were resident since {@link forgetPeak}. */
export function peakBytes(pid: number): number {
  return statusBytes(pid, 'VmHWM')
}

/** Starts the peak of a process anew. */
export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

/** Watches how much of the machine everybody else uses. */
export class Neighbours {
  readonly #started = performance.now()
  readonly #busy = Neighbours.#busySeconds()
  readonly #ours: number
  readonly #pids: readonly number[]

  /** @param pids the processes that are measured; this one and the children it has waited for count as ours too */
  constructor(pids: readonly number[]) {
    this.#pids = pids
    this.#ours = this.#ourSeconds()
  }

  /** Share of all cores, 0 to 1, that others used since the start. */
  share(): number {
    const seconds = (performance.now() - this.#started) / 1000
    const others = Neighbours.#busySeconds() - this.#busy - (this.#ourSeconds() - this.#ours)
    return Math.max(0, others / (seconds * availableParallelism()))
  }

  #ourSeconds(): number {
    return cpuSeconds(this.#pids) + cpuSeconds([process.pid])
  }

  static #busySeconds(): number {
    const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n')
    const fields = first.trim().split(/\s+/).slice(1).map(Number)
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
  }
}
