import { UpstreamFailure } from './upstream-failure.ts'

/**
 * Runs `ask` with a signal that fires after `ms`: then it fails as from an upstream that is silent. What it answers in time
 * is not bound by the signal any more, so that a body may take as long as it takes. @throws UpstreamFailure `failed`
 */
export async function within<T>(host: string, ms: number, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const giving = new AbortController()
  const late = new UpstreamFailure('failed', `${host} did not answer in ${ms / 1000} s`)
  const timer = setTimeout(() => giving.abort(late), ms)
  try {
    return await ask(giving.signal)
  } finally {
    clearTimeout(timer)
  }
}
