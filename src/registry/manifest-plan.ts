import type { Digest } from '../oci/digest.ts'
import type { ParsedManifest } from '../oci/manifest.ts'

/** The rows that pushing a manifest means, decided without looking at anything but the manifest. */
export interface ManifestPlan {
  readonly mediaType: string
  readonly artifactType: string | undefined
  readonly subject: Digest | undefined
  readonly annotations: Readonly<Record<string, string>> | undefined
  /** Edges to blobs; those that are `required` must be linked in the repository. */
  readonly blobs: readonly { readonly digest: Digest; readonly required: boolean }[]
  /** Edges to manifests; content may come after what names it. */
  readonly children: readonly Digest[]
}

/** What is to be written for a manifest. Pure: pushing, collection and verification share it. */
export function planManifest(parsed: ParsedManifest): ManifestPlan {
  return {
    mediaType: parsed.mediaType,
    artifactType: parsed.artifactType,
    subject: parsed.subject?.digest,
    annotations: parsed.annotations,
    blobs: parsed.blobs,
    children: parsed.children,
  }
}
