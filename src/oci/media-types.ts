/** Media types of image-spec "Media Types" and of Docker's image manifest version 2, schema 2. */
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'

const IMAGES: ReadonlySet<string> = new Set([OCI_MANIFEST, DOCKER_MANIFEST])
const INDEXES: ReadonlySet<string> = new Set([OCI_INDEX, DOCKER_LIST])
const FOREIGN =
  /^application\/vnd\.(?:docker\.image\.rootfs\.foreign\.diff\.tar(?:\.gzip)?|oci\.image\.layer\.nondistributable\.v1\.tar(?:\+(?:gzip|zstd))?)$/

/** Whether a descriptor of this type names a manifest. */
export function isManifestMediaType(type: string): boolean {
  return IMAGES.has(type) || INDEXES.has(type)
}

/** Whether manifests of this type list other manifests. */
export function isIndexMediaType(type: string): boolean {
  return INDEXES.has(type)
}

/** Whether a layer of this type lies elsewhere: image-spec layer, "Non-Distributable Layers". */
export function isForeignLayer(type: string): boolean {
  return FOREIGN.test(type)
}

/** A Content-Type without its parameters, which a registry ignores on a push. */
export function baseMediaType(header: string): string {
  return (header.split(';')[0] ?? '').trim().toLowerCase()
}
