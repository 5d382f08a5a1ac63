import Router from '@koa/router'
import Koa from 'koa'
import { RegistryError } from './oci/errors.ts'
import { type Addressing, addressing } from './middleware/addressing.ts'
import { errors, isAbort, notFound } from './middleware/errors.ts'
import type { Administration } from './access/administration.ts'
import type { Authority } from './auth/authority.ts'
import { type ProxyHeaders, forwarded, refusePlainCredentials } from './middleware/forwarded.ts'
import { OPEN_GATE, createGate } from './middleware/gate.ts'
import { type RequestObserver, requestLog } from './middleware/request-log.ts'
import { wellFormed } from './middleware/well-formed.ts'
import type { Registry } from './registry/registry.ts'
import { API_PREFIX } from './routes/api/endpoint.ts'
import { administrationRoutes, identifyBy, identifyLocal } from './routes/api/routes.ts'
import { baseRoutes } from './routes/base.ts'
import { blobRoutes } from './routes/blobs.ts'
import { type SharedFetches, fetchRoutes } from './routes/fetches.ts'
import { type Readiness, healthRoutes } from './routes/health.ts'
import { listRoutes } from './routes/lists.ts'
import { manifestRoutes } from './routes/manifests.ts'
import { tokenRoutes } from './routes/token.ts'
import { uploadRoutes } from './routes/uploads.ts'

const NOTHING_MORE = { before: [], after: [] }

/** What logging in, and administering who may, is made of. */
export interface AccessRoutes {
  readonly authority: Authority
  readonly administration: Administration
  /** What the administration's API calls itself. */
  readonly version: string
  /** The registry's own address, where clients do not reach it by the Host they send. */
  readonly publicUrl: string | undefined
  /** Where clients fetch tokens, where another server issues them. */
  readonly realm: string | undefined
  /** Whether credentials are taken over plain HTTP from beyond loopback. */
  readonly allowPlainHttp: boolean
}

/** What the application is made of. */
export interface AppOptions {
  readonly registry: Registry
  /** Who may do what; absent where everyone may do everything. */
  readonly access?: AccessRoutes
  /** How repositories of mirrors may be named besides by their prefix; absent without mirrors. */
  readonly addressing?: Addressing
  /** What other processes may follow of what this one fetches; absent where they share nothing. */
  readonly fetches?: SharedFetches
  /** Addresses and networks of proxies whose `X-Forwarded-*` headers (or `Forwarded`) are believed. */
  readonly trustedProxies?: readonly string[]
  /** Which headers of theirs; `x-forwarded` without it. */
  readonly proxyHeaders?: ProxyHeaders
  readonly manifestMaxBytes: number
  readonly tagListMax: number
  /** Told of every finished request, for the access log and metrics. */
  readonly observe: RequestObserver
  /** Told of errors that belong to no request's answer. */
  readonly onError: (error: unknown) => void
  /** Whether the index and the stores answer. */
  readonly ready: () => Promise<Readiness>
}

/** Builds the application: order of middleware and routes. It neither reads the environment nor listens. */
export function createApp(options: AppOptions): Koa {
  const router = new Router()
  healthRoutes(router, options.ready)
  const { access, trustedProxies = [] } = options
  const gate = access === undefined ? OPEN_GATE : createGate(access.authority, access)
  const routers: Mounted[] = [{ under: '/', router }]
  if (access !== undefined) {
    tokenRoutes(router, access.authority)
    const api = new Router()
    administrationRoutes(api, access, options.registry, identifyBy(access.authority))
    routers.unshift({ under: `${API_PREFIX}/`, router: api })
  }
  if (options.fetches !== undefined) fetchRoutes(router, options.fetches)
  baseRoutes(router, gate)
  uploadRoutes(router, options.registry, gate, access?.authority)
  listRoutes(router, options.registry, gate, access?.authority, { maxTags: options.tagListMax })
  blobRoutes(router, options.registry, gate)
  manifestRoutes(router, options.registry, gate, { maxBytes: options.manifestMaxBytes })
  const before = trustedProxies.length === 0 ? [] : [forwarded(trustedProxies, options.proxyHeaders ?? 'x-forwarded')]
  const refuses = access !== undefined && !access.allowPlainHttp
  const after = [
    ...(refuses ? [refusePlainCredentials] : []),
    ...(options.addressing === undefined ? [] : [addressing(options.addressing)]),
  ]
  return assemble(routers, options, { before, after })
}

/** The application behind the administrator's socket: the administration's API and nothing else. */
export function createLocalApp(
  options: Pick<AppOptions, 'observe' | 'onError' | 'registry'> & Pick<AccessRoutes, 'administration' | 'version'>,
): Koa {
  const router = new Router()
  administrationRoutes(router, options, options.registry, identifyLocal)
  return assemble([{ under: '/', router }], options)
}

/** A router, and where its paths begin: it tries each of its routes on every request that it is asked about. */
interface Mounted {
  readonly under: string
  readonly router: Router
}

/** Puts the routes behind what every request goes through; `before` stands before the log, `after` behind the errors. */
function assemble(
  routers: readonly Mounted[],
  options: Pick<AppOptions, 'observe' | 'onError'>,
  more: { readonly before: readonly Koa.Middleware[]; readonly after: readonly Koa.Middleware[] } = NOTHING_MORE,
): Koa {
  const unsupported = () => new RegistryError('UNSUPPORTED')
  const app = new Koa()
  app.on('error', error => {
    if (!isAbort(error)) options.onError(error)
  })
  for (const middleware of more.before) app.use(middleware)
  app.use(requestLog(options.observe))
  app.use(errors)
  app.use(wellFormed)
  for (const middleware of more.after) app.use(middleware)
  app.use(notFound)
  for (const { under, router } of routers) {
    const methods = router.allowedMethods({ throw: true, methodNotAllowed: unsupported, notImplemented: unsupported })
    app.use(within(under, router.routes()))
    app.use(within(under, methods))
  }
  return app
}

/** Leaves out `middleware` where the path does not begin with `under`. */
function within<C extends Koa.Context>(
  under: string,
  middleware: (ctx: C, next: Koa.Next) => unknown,
): (ctx: C, next: Koa.Next) => unknown {
  return (ctx, next) => (ctx.path.startsWith(under) ? middleware(ctx, next) : next())
}
