import type Router from '@koa/router'
import { json } from './params.ts'

/** `/v2/`: distribution-spec, "Determining Support". */
export function baseRoutes(router: Router): void {
  router.get('/v2/', ctx => json(ctx, {}))
}
