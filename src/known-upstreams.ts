/** What is known of public registries, so that nobody has to look it up. */
export interface KnownUpstream {
  /** What clients say in `?ns=` for it. */
  readonly namespaces: readonly string[]
  /** Where it sends clients for content. */
  readonly contentHosts: readonly string[]
  /** What it puts before names of one component. */
  readonly defaultNamespace?: string
}

const KNOWN: Readonly<Record<string, KnownUpstream>> = {
  'registry-1.docker.io': {
    namespaces: ['docker.io'],
    contentHosts: ['*.docker.com', '*.r2.cloudflarestorage.com', '*.cloudfront.net'],
    defaultNamespace: 'library',
  },
  'ghcr.io': { namespaces: ['ghcr.io'], contentHosts: ['*.githubusercontent.com'] },
  'quay.io': { namespaces: ['quay.io'], contentHosts: ['*.cloudfront.net', '*.amazonaws.com'] },
  'gcr.io': { namespaces: ['gcr.io'], contentHosts: ['storage.googleapis.com'] },
  'registry.k8s.io': {
    namespaces: ['registry.k8s.io'],
    contentHosts: ['*.pkg.dev', '*.amazonaws.com', 'storage.googleapis.com'],
  },
  'mcr.microsoft.com': {
    namespaces: ['mcr.microsoft.com'],
    contentHosts: ['*.azureedge.net', '*.blob.core.windows.net'],
  },
  'public.ecr.aws': { namespaces: ['public.ecr.aws'], contentHosts: ['*.cloudfront.net', '*.amazonaws.com'] },
}

/** What is known of the registry at `host`; of one that nobody told us about, that clients call it by its host. */
export function knownUpstream(host: string): KnownUpstream {
  return KNOWN[host] ?? { namespaces: [host], contentHosts: [] }
}
