import { Range, type SemVer, parse as parseVersion } from 'semver'
import { tryParseName } from '../oci/name.ts'
import { tagMatcher } from '../oci/tag-pattern.ts'

/** Which tags of a repository. */
export interface TagSelection {
  /** Globs, or regular expressions between slashes; of these any. */
  readonly match: readonly string[]
  readonly exclude: readonly string[]
  /** A range of semantic versions; undefined: tags need not be versions. */
  readonly versions: string | undefined
  /** Whether pre-releases, such as 1.2.3-alpine, count as versions. */
  readonly prereleases: boolean
  /** Undefined: all. */
  readonly newest: number | undefined
  readonly newestBy: 'version' | 'created'
}

/** Tags that are made of the digest of what they are about: they go with that, not by themselves. */
const COMPANION = /^sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.|$)/

/**
 * Tags that match, that lie in the range of versions, and of these, where versions decide what is newest, those of the
 * newest. `1.2.3` and `v1.2.3` are one version. Pure; in the order of `tags`.
 */
export function selectTags(selection: TagSelection, tags: readonly string[]): readonly string[] {
  const { versions, prereleases, newest, newestBy } = selection
  const [matches, excludes] = [matcherOf(selection.match), matcherOf(selection.exclude)]
  const named = tags.filter(tag => !COMPANION.test(tag) && matches(tag) && !excludes(tag))
  const isByVersion = newest !== undefined && newestBy === 'version'
  if (versions === undefined && !isByVersion) return named
  const range = new Range(versions ?? '*', { includePrerelease: prereleases })
  const known = named.flatMap(tag => {
    const version = parseVersion(tag)
    return version !== null && range.test(version) ? [{ tag, version }] : []
  })
  if (!isByVersion) return known.map(({ tag }) => tag)
  const chosen = new Set(
    highest(
      known.map(({ version }) => version),
      newest,
    ),
  )
  return known.filter(({ version }) => chosen.has(version.version)).map(({ tag }) => tag)
}

/** The newest of these by when they were built; those of which nobody knows count as the oldest. Pure. */
export function newestCreated(
  count: number,
  tags: readonly { readonly tag: string; readonly created: Date | undefined }[],
): readonly string[] {
  return tags
    .toSorted((one, other) => (other.created?.getTime() ?? 0) - (one.created?.getTime() ?? 0))
    .slice(0, count)
    .map(({ tag }) => tag)
}

function highest(versions: readonly SemVer[], count: number): readonly string[] {
  const sorted = versions.toSorted((one, other) => other.compare(one))
  return [...new Set(sorted.map(version => version.version))].slice(0, count)
}

function matcherOf(patterns: readonly string[]): (tag: string) => boolean {
  if (patterns.includes('*')) return () => true
  const matchers = patterns.map(tagMatcher)
  return tag => matchers.some(matches => matches(tag))
}

/** Whether a pattern of repositories has to be looked up; otherwise it is the name of one. */
export function isGlob(pattern: string): boolean {
  return pattern.includes('*')
}

/** How names at the source become names at the target. */
export interface Renaming {
  readonly stripPrefix: string | undefined
  readonly addPrefix: string | undefined
}

/** The name at the target, or undefined where it would be none. */
export function targetName({ stripPrefix, addPrefix }: Renaming, repository: string): string | undefined {
  const isBelow = stripPrefix !== undefined && repository.startsWith(`${stripPrefix}/`)
  const rest = isBelow ? repository.slice(stripPrefix.length + 1) : repository
  return tryParseName(addPrefix === undefined ? rest : `${addPrefix}/${rest}`)
}
