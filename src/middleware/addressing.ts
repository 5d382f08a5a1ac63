import type { Middleware } from 'koa'
import { RegistryError } from '../oci/errors.ts'

/** How clients may name repositories of mirrors besides by their prefix. */
export interface Addressing {
  /** Prefix of repositories by the upstream's own name, as clients say it in `?ns=`. */
  readonly namespaces: ReadonlyMap<string, string>
  /** Prefix of repositories by the host under which the mirror stands at the root, with or without its port. */
  readonly hosts: ReadonlyMap<string, string>
}

const REPOSITORY_PATH = /^\/v2\/(?!_catalog(?:\/|$))(.+\/(?:manifests|blobs|tags|referrers)\/.+)$/

/**
 * Leads requests for an upstream's repositories to those of its mirror: distribution-spec, "Registry Proxying". `ns` names
 * one of the mirrors and nothing else, so nobody can make the registry ask another; where a client adds it to a path that
 * has the prefix already (BuildKit, containerd's `override_path`), the path stays.
 * Throws NAME_UNKNOWN for a namespace that is not mirrored, on which clients go to the next registry they know.
 */
export function addressing({ namespaces, hosts }: Addressing): Middleware {
  return async (ctx, next) => {
    const path = REPOSITORY_PATH.exec(ctx.path)?.[1]
    if (path !== undefined) {
      const { ns } = ctx.query
      const asked = typeof ns === 'string' ? ns : ns?.at(-1)
      // A client that reaches us by an alias says our own name.
      const namespace = asked === ctx.host || asked === ctx.hostname ? undefined : asked
      const prefix =
        namespace === undefined
          ? (hosts.get(ctx.host.toLowerCase()) ?? hosts.get(ctx.hostname.toLowerCase()))
          : namespaces.get(namespace.toLowerCase())
      if (namespace !== undefined && prefix === undefined) {
        throw new RegistryError('NAME_UNKNOWN', { message: 'there is no mirror of that namespace', detail: { ns } })
      }
      if (prefix !== undefined && !path.startsWith(`${prefix}/`)) ctx.path = `/v2/${prefix}/${path}`
      if (namespace !== undefined) ctx.set('OCI-Namespace', namespace)
    }
    await next()
  }
}
