import type Router from '@koa/router'
import { RegistryError } from '../oci/errors.ts'
import { json } from './params.ts'

/** Whether requests can be served, and what their operator should know. */
export interface Readiness {
  readonly isReady: boolean
  /** In words, for people; shown to whoever asks. */
  readonly notes: readonly string[]
}

/** `/healthz`: the process answers. `/readyz`: the index and the stores answer as well, else 503; notes in both cases. */
export function healthRoutes(router: Router, ready: () => Promise<Readiness>): void {
  router.get('/healthz', ctx => json(ctx, { status: 'ok' }))
  router.get('/readyz', async ctx => {
    const { isReady, notes } = await ready()
    if (!isReady) {
      const message = notes.length === 0 ? {} : { message: notes.join('; ') }
      throw new RegistryError('UNAVAILABLE', { ...message, headers: { 'Retry-After': '5' } })
    }
    json(ctx, notes.length === 0 ? { status: 'ready' } : { status: 'ready', notes })
  })
}
