import type Router from '@koa/router'
import { RegistryError } from '../oci/errors.ts'
import { json } from './params.ts'

/** `/healthz`: the process answers. `/readyz`: the index and the store answer as well, else 503. */
export function healthRoutes(router: Router, ready: () => Promise<boolean>): void {
  router.get('/healthz', ctx => json(ctx, { status: 'ok' }))
  router.get('/readyz', async ctx => {
    if (!(await ready())) throw new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '5' } })
    json(ctx, { status: 'ready' })
  })
}
