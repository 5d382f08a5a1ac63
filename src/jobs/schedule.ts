/** A piece of background work. Each is safe to run in several processes at once: its rows are taken with SKIP LOCKED. */
export interface Job {
  readonly name: string
  readonly everyMs: number
  /** Long work ends early, by an error, when `signal` fires: what it has committed stays done. */
  readonly run: (signal: AbortSignal) => Promise<unknown>
}

/** Running jobs; `stop` tells those under way to end and resolves when they have. */
export interface Schedule {
  /** Runs a job now; where it is running, once more after that. A name that no job has is ignored. */
  wake(name: string): void
  stop(): Promise<void>
}

/** Runs each job again and again, never twice at once in this process; a failure is reported and the next turn tries again. */
export function startJobs(jobs: readonly Job[], onError: (job: string, error: unknown) => void): Schedule {
  const stopping = new AbortController()
  const running = new Set<Promise<void>>()
  const busy = new Set<string>()
  const again = new Set<string>()
  const turn = async (job: Job): Promise<void> => {
    try {
      await job.run(stopping.signal)
    } catch (error) {
      if (!stopping.signal.aborted) onError(job.name, error)
    } finally {
      busy.delete(job.name)
    }
    if (again.delete(job.name)) start(job)
  }
  const start = (job: Job): void => {
    if (busy.has(job.name) || stopping.signal.aborted) return
    busy.add(job.name)
    const work = turn(job)
    running.add(work)
    void work.finally(() => running.delete(work))
  }
  const timers = jobs.map(job => setInterval(() => start(job), job.everyMs).unref())
  return {
    wake(name) {
      for (const job of jobs.filter(one => one.name === name)) {
        if (busy.has(name)) again.add(name)
        else start(job)
      }
    },
    async stop() {
      stopping.abort()
      for (const timer of timers) clearInterval(timer)
      await Promise.all(running)
    },
  }
}
