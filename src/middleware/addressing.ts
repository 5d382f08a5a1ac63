import type { Context, Middleware } from 'koa'
import { RegistryError } from '../oci/errors.ts'

/** A mirror as clients may name its repositories. */
export interface AddressedMirror {
  /** What the names of its repositories begin with here, before a `/`. */
  readonly prefix: string
  /** What the upstream puts before names of one component, where it does: its names have two components, always. */
  readonly defaultNamespace?: string | undefined
}

/** How clients may name repositories of mirrors besides by their prefix. */
export interface Addressing {
  /** Whether there are mirrors: without any, whatever clients say in `?ns=` can only mean this registry. */
  readonly hasMirrors: () => boolean
  /** The mirror that is meant by the upstream's own name, in lower case, as clients say it in `?ns=`. */
  readonly byNamespace: (namespace: string) => AddressedMirror | undefined
  /** The mirror that stands at the root of a host, in lower case, with or without its port. */
  readonly byHost: (host: string) => AddressedMirror | undefined
  /** The mirror of which a repository here is. */
  readonly byName: (name: string) => AddressedMirror | undefined
}

const REPOSITORY_PATH = /^\/v2\/(?!_catalog(?:\/|$))(.+)\/((?:manifests|blobs|tags|referrers)\/.+)$/

/**
 * Leads requests for an upstream's repositories to those of its mirror: distribution-spec, "Registry Proxying". `ns` names
 * one of the mirrors and nothing else, so nobody can make the registry ask another. Every repository has one name in the
 * end, which is what grants are checked against: `hub/alpine` is `hub/library/alpine`.
 * Throws NAME_UNKNOWN for a namespace that is not one of the mirrors there are, on which clients go to the next registry they know.
 */
export function addressing(mirrors: Addressing): Middleware {
  return async (ctx, next) => {
    if (!mirrors.hasMirrors()) {
      await next()
      return
    }
    ctx.state['scopeNames'] = (name: string) => scopeNames(mirrors, ctx, name)
    ctx.state['canonicalName'] = (name: string) => canonical(mirrors, name)
    const [, asked, rest] = REPOSITORY_PATH.exec(ctx.path) ?? []
    if (asked === undefined || rest === undefined) {
      await next()
      return
    }
    const namespace = namespaceOf(ctx)
    const mirror = namespace === undefined ? mirrorAt(mirrors, ctx) : mirrors.byNamespace(namespace.toLowerCase())
    if (namespace !== undefined && mirror === undefined) {
      const message = 'there is no mirror of that namespace'
      throw new RegistryError('NAME_UNKNOWN', { message, detail: { ns: namespace } })
    }
    const name = canonical(mirrors, mirror === undefined ? asked : nameHere(mirror, asked))
    ctx.path = `/v2/${name}/${rest}`
    if (namespace !== undefined) ctx.set('OCI-Namespace', namespace)
    await next()
    // The next page is asked for as this one was.
    const link = ctx.res.getHeader('Link')
    const [here, there] = [`</v2/${name}/`, `</v2/${asked}/`]
    if (typeof link === 'string' && link.startsWith(here)) ctx.set('Link', there + link.slice(here.length))
  }
}

/** The repositories here that a scope of a token request may mean: clients say what they were asked for, or what a challenge says. */
export function scopeNamesOf(ctx: Context, name: string): readonly string[] {
  const names = ctx.state['scopeNames'] as ((name: string) => readonly string[]) | undefined
  return names === undefined ? [name] : names(name)
}

/** The one name of the repository that a parameter of a request means, as the name in its path is made one. */
export function canonicalNameOf(ctx: Context, name: string): string {
  const canonicalName = ctx.state['canonicalName'] as ((name: string) => string) | undefined
  return canonicalName === undefined ? name : canonicalName(name)
}

function scopeNames(mirrors: Addressing, ctx: Context, name: string): readonly string[] {
  const mirror = mirrorAt(mirrors, ctx)
  const names = mirror === undefined ? [name] : [name, nameHere(mirror, name)]
  return [...new Set(names.map(one => canonical(mirrors, one)))]
}

/** The `?ns=` of a request; none where a client that reaches us by an alias says our own name. */
function namespaceOf(ctx: Context): string | undefined {
  const { ns } = ctx.query
  const asked = typeof ns === 'string' ? ns : ns?.at(-1)
  return asked === ctx.host || asked === ctx.hostname ? undefined : asked
}

function mirrorAt({ byHost }: Addressing, { host, hostname }: Context): AddressedMirror | undefined {
  return byHost(host.toLowerCase()) ?? byHost(hostname.toLowerCase())
}

/**
 * The name here of a repository that a client calls as the upstream does. It may begin with the mirror's prefix by itself:
 * an organisation on Docker Hub may be called as the prefix is. Only where the upstream's names have two components is it
 * known that a client has put the prefix before them too.
 */
function nameHere({ prefix, defaultNamespace }: AddressedMirror, name: string): string {
  const below = name.startsWith(`${prefix}/`) ? name.slice(prefix.length + 1) : ''
  const isPrefixed = defaultNamespace !== undefined && below.includes('/')
  return isPrefixed ? name : `${prefix}/${name}`
}

/** The one name of a repository that upstreams and clients call by two. */
function canonical({ byName }: Addressing, name: string): string {
  const { prefix, defaultNamespace } = byName(name) ?? {}
  if (prefix === undefined || defaultNamespace === undefined) return name
  const below = name.slice(prefix.length + 1)
  return below.includes('/') ? name : `${prefix}/${defaultNamespace}/${below}`
}
