import Router from '@koa/router'
import Koa from 'koa'
import { RegistryError } from './oci/errors.ts'
import { errors, isAbort, notFound } from './middleware/errors.ts'
import type { Administration } from './access/administration.ts'
import type { Authority } from './auth/authority.ts'
import { forwarded, refusePlainCredentials } from './middleware/forwarded.ts'
import { OPEN_GATE, createGate } from './middleware/gate.ts'
import { type RequestObserver, requestLog } from './middleware/request-log.ts'
import { wellFormed } from './middleware/well-formed.ts'
import type { Registry } from './registry/registry.ts'
import { administrationRoutes, identifyBy, identifyLocal } from './routes/api/routes.ts'
import { baseRoutes } from './routes/base.ts'
import { blobRoutes } from './routes/blobs.ts'
import { healthRoutes } from './routes/health.ts'
import { listRoutes } from './routes/lists.ts'
import { manifestRoutes } from './routes/manifests.ts'
import { tokenRoutes } from './routes/token.ts'
import { uploadRoutes } from './routes/uploads.ts'

const NOTHING_MORE = { before: [], after: [] }

/** What the application is made of. */
export interface AppOptions {
  readonly registry: Registry
  /** Who decides who may; absent where everyone may do everything. */
  readonly authority: Authority | undefined
  /** The administration's API; absent where nobody logs in. */
  readonly administration: Administration | undefined
  readonly version: string
  /** The registry's own address, where clients do not reach it by the Host they send. */
  readonly publicUrl: string | undefined
  /** Addresses and networks of proxies whose `X-Forwarded-*` headers are believed. */
  readonly trustedProxies: readonly string[]
  /** Whether credentials are taken over plain HTTP from beyond loopback. */
  readonly allowPlainHttp: boolean
  readonly manifestMaxBytes: number
  readonly tagListMax: number
  /** Told of every finished request, for the access log and metrics. */
  readonly observe: RequestObserver
  /** Told of errors that belong to no request's answer. */
  readonly onError: (error: unknown) => void
  /** Whether the index and the store answer. */
  readonly ready: () => Promise<boolean>
}

/** Builds the application: order of middleware and routes. It neither reads the environment nor listens. */
export function createApp(options: AppOptions): Koa {
  const router = new Router()
  healthRoutes(router, options.ready)
  const { authority } = options
  const gate = authority === undefined ? OPEN_GATE : createGate(authority, options.publicUrl)
  if (authority !== undefined) {
    tokenRoutes(router, authority)
    const { administration } = options
    if (administration !== undefined) {
      administrationRoutes(router, administration, identifyBy(authority), options.version)
    }
  }
  baseRoutes(router, gate)
  uploadRoutes(router, options.registry, gate, authority)
  listRoutes(router, options.registry, gate, authority, { maxTags: options.tagListMax })
  blobRoutes(router, options.registry, gate)
  manifestRoutes(router, options.registry, gate, { maxBytes: options.manifestMaxBytes })
  const before = options.trustedProxies.length === 0 ? [] : [forwarded(options.trustedProxies)]
  const refuses = authority !== undefined && !options.allowPlainHttp
  return assemble(router, options, { before, after: refuses ? [refusePlainCredentials] : [] })
}

/** The application behind the administrator's socket: the administration's API and nothing else. */
export function createLocalApp(
  options: Pick<AppOptions, 'observe' | 'onError' | 'version'> & { readonly administration: Administration },
): Koa {
  const router = new Router()
  administrationRoutes(router, options.administration, identifyLocal, options.version)
  return assemble(router, options)
}

/** Puts the routes behind what every request goes through; `before` stands before the log, `after` behind the errors. */
function assemble(
  router: Router,
  options: Pick<AppOptions, 'observe' | 'onError'>,
  more: { readonly before: readonly Koa.Middleware[]; readonly after: readonly Koa.Middleware[] } = NOTHING_MORE,
): Koa {
  const unsupported = () => new RegistryError('UNSUPPORTED')
  const app = new Koa()
  app.on('error', error => {
    if (!isAbort(error)) options.onError(error)
  })
  app.on('error', options.onError)
  for (const middleware of more.before) app.use(middleware)
  app.use(requestLog(options.observe))
  app.use(errors)
  app.use(wellFormed)
  for (const middleware of more.after) app.use(middleware)
  app.use(notFound)
  app.use(router.routes())
  app.use(
    router.allowedMethods({
      throw: true,
      methodNotAllowed: unsupported,
      notImplemented: unsupported,
    }),
  )
  return app
}
