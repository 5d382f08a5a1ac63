/** A piece of background work. Each is safe to run in several processes at once: its rows are taken with SKIP LOCKED. */
export interface Job {
  readonly name: string
  readonly everyMs: number
  /** Long work ends early, by an error, when `signal` fires: what it has committed stays done. */
  readonly run: (signal: AbortSignal) => Promise<unknown>
}

/** Running jobs; `stop` tells those under way to end and resolves when they have. */
export interface Schedule {
  stop(): Promise<void>
}

/** Runs each job again and again, never twice at once in this process; a failure is reported and the next turn tries again. */
export function startJobs(jobs: readonly Job[], onError: (job: string, error: unknown) => void): Schedule {
  const stopping = new AbortController()
  const running = new Set<Promise<void>>()
  const busy = new Set<string>()
  const timers = jobs.map(job => {
    const turn = async (): Promise<void> => {
      try {
        await job.run(stopping.signal)
      } catch (error) {
        if (!stopping.signal.aborted) onError(job.name, error)
      } finally {
        busy.delete(job.name)
      }
    }
    const timer = setInterval(() => {
      if (busy.has(job.name)) return
      busy.add(job.name)
      const work = turn()
      running.add(work)
      void work.finally(() => running.delete(work))
    }, job.everyMs)
    return timer.unref()
  })
  return {
    async stop() {
      stopping.abort()
      for (const timer of timers) clearInterval(timer)
      await Promise.all(running)
    },
  }
}
