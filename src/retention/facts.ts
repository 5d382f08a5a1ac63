/** When something came and was last used. */
export interface UseTimes {
  readonly digest: string
  readonly pushedAt: Date
  /** Undefined: not since pulls are counted. */
  readonly pulledAt: Date | undefined
}

/** A tag as it is. `pushedAt`: when it was pointed at what it points to. */
export interface TagFacts extends UseTimes {
  readonly name: string
  /** The digest of what its manifest is about, where that names a subject. */
  readonly subject: string | undefined
}

/** What is known of one repository. */
export interface RepositoryFacts {
  readonly now: Date
  /** Since when pulls have been counted. */
  readonly countedSince: Date
  readonly tags: readonly TagFacts[]
  /** Manifests that nothing keeps but the time that was promised them. */
  readonly untagged: readonly UseTimes[]
  /** By the digests of what tags are about ({@link subjectOf}), where that is in the repository: the indexes that name it. */
  readonly subjects: ReadonlyMap<string, readonly string[]>
}

/** distribution-spec, "Referrers Tag Schema": a tag made of the digest it is about; cosign puts a suffix behind it. */
const FALLBACK = /^sha256-([0-9a-f]{64})(?:\.|$)/

/** The digest of what a tag is about: its manifest's subject, or what its name says; undefined for one that stands for itself. */
export function subjectOf({ name, subject }: Pick<TagFacts, 'name' | 'subject'>): string | undefined {
  if (subject !== undefined) return subject
  const hex = FALLBACK.exec(name)?.[1]
  return hex === undefined ? undefined : `sha256:${hex}`
}
