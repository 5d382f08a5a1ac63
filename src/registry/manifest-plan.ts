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
  /** Layers that lie elsewhere; they have no edge. */
  readonly foreignLayers: number
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
    foreignLayers: parsed.foreignLayers,
  }
}

/** Content that a manifest names and its repository does not have: blobs that are `required`, and manifests. */
export interface AbsentContent {
  readonly blobs: readonly Digest[]
  readonly children: readonly Digest[]
}

/** What of a plan is absent where the repository has what `blobs` and `children` say. */
export function absentContent(
  plan: ManifestPlan,
  present: { readonly blobs: ReadonlyMap<Digest, unknown>; readonly children: ReadonlyMap<Digest, unknown> },
): AbsentContent {
  return {
    blobs: plan.blobs.filter(blob => blob.required && !present.blobs.has(blob.digest)).map(blob => blob.digest),
    children: plan.children.filter(child => !present.children.has(child)),
  }
}

/** What the client of an accepted push should know: what of the image cannot be pulled from here, at most three texts. */
export function warningsOf(plan: ManifestPlan, absent: AbsentContent): string[] {
  const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`
  return [
    ...(plan.foreignLayers === 0
      ? []
      : [
          `${count(plan.foreignLayers, 'foreign layer')} not stored in this registry: whoever pulls needs the layer's own URLs`,
        ]),
    ...(absent.blobs.length === 0
      ? []
      : [
          `${count(absent.blobs.length, 'blob')} not in this repository, first ${absent.blobs[0]}: pulls fail until pushed`,
        ]),
    ...(absent.children.length === 0
      ? []
      : [
          `sparse index: ${count(absent.children.length, 'manifest')} not in this repository, first ${absent.children[0]}`,
        ]),
  ]
}
