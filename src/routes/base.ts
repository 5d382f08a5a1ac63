import type Router from '@koa/router'
import type { Gate } from '../middleware/gate.ts'
import { json } from './params.ts'

/** `/v2/`: distribution-spec, "Determining Support". */
export function baseRoutes(router: Router, gate: Gate): void {
  router.get('/v2/', gate.ping, ctx => json(ctx, {}))
}
