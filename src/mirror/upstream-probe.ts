import type { Answer } from './transport.ts'
import { UpstreamFailure } from './upstream-failure.ts'
import type { UpstreamSession } from './upstream-session.ts'

/** One thing that was tried at an upstream, and what came of it. */
export interface ProbeStep {
  readonly step: 'reach' | 'login' | 'repository'
  readonly ok: boolean
  readonly message: string
}

/**
 * Asks what anybody has to get through who pulls: whether there is a registry, whether it takes our login, and whether
 * it shows a repository. Ends with what goes wrong; never fails.
 */
export async function probe(
  session: UpstreamSession,
  username: string | undefined,
  show: (() => Promise<string>) | undefined,
  signal: AbortSignal,
): Promise<readonly ProbeStep[]> {
  const done: ProbeStep[] = []
  const step = async (name: ProbeStep['step'], ask: () => Promise<string>): Promise<boolean> => {
    try {
      done.push({ step: name, ok: true, message: await ask() })
      return true
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error
      done.push({ step: name, ok: false, message: error.message })
      return false
    }
  }
  const url = session.urlOf(undefined, '')
  let challenged: Answer | undefined
  const isThere = await step('reach', async () => {
    const answer = await session.send('GET', url, { headers: {}, signal }, undefined)
    await answer.body.dump()
    if (answer.statusCode === 401) challenged = answer
    const failure = challenged === undefined ? session.failureOf(answer) : undefined
    if (failure !== undefined) throw failure
    return challenged === undefined ? `${session.host} wants no login` : `${session.host} answers, and wants a login`
  })
  const isIn =
    isThere &&
    (challenged === undefined ||
      (await step('login', async () => {
        const authorization = await session.authorize('', challenged as Answer)
        const answer = await session.send('GET', url, { headers: {}, signal }, authorization)
        await answer.body.dump()
        const failure = session.failureOf(answer)
        if (failure !== undefined) throw failure
        return `${session.host} takes the login of ${username ?? 'nobody in particular'}`
      })))
  if (isIn && show !== undefined) await step('repository', show)
  return done
}
