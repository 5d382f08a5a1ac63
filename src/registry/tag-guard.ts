import { LRUCache } from 'lru-cache'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import { matchesPattern } from '../oci/repository-pattern.ts'
import { tagMatcher } from '../oci/tag-pattern.ts'
import type { Queryable, Transaction } from '../metadata/database.ts'
import { type AppliedTagRule, findImmutableRules, holdTagRules } from '../metadata/tag-rules.ts'
import { listTags } from '../metadata/tags.ts'

/** What happens to a tag. One that is pointed at the manifest it points to already does not change. */
export type TagChange = 'created' | 'moved' | 'deleted'

/**
 * Who changes tags. Retention is nobody, and may remove what a rule lets expire. A mirror is nobody who pushes: that a tag
 * is protected does not concern it.
 */
export type TagWriter = { readonly isMirror?: boolean } & (
  | { readonly principalId?: number }
  | { readonly isRetention: true }
)

/** The rules that concern one repository and one writer, held until the transaction ends. */
export interface TagGuard {
  /** Whether any rule concerns the repository: without one there is nothing to look at. */
  readonly hasRules: boolean
  /** @throws RegistryError DENIED with the rule that refuses. */
  check(tag: string, change: TagChange): void
}

/** What a rule says against a change, or undefined where it has nothing against it. Pure. */
export function tagRefusal(
  rule: Pick<AppliedTagRule, 'immutable' | 'protected' | 'may_expire' | 'is_writer'>,
  change: TagChange,
  writer: TagWriter,
): 'immutable' | 'protected' | undefined {
  const isExpiry = 'isRetention' in writer && change === 'deleted'
  if (isExpiry && rule.may_expire) return undefined
  if (rule.immutable && change !== 'created') return 'immutable'
  return rule.protected && !rule.is_writer && writer.isMirror !== true ? 'protected' : undefined
}

/** Whether a rule makes a tag immutable now; nothing holds the rule. */
export async function isImmutable(db: Queryable, repository: RepositoryName, tag: Tag): Promise<boolean> {
  const rules = await findImmutableRules(db)
  return rules.some(({ pattern, tags }) => matchesPattern(pattern, repository) && matcherOf(tags)(tag))
}

/**
 * The rules for changing tags of a repository. Every transaction that changes tags opens one: after it holds the
 * repository, before it locks tags and manifests.
 */
export async function openTagGuard(tx: Transaction, repository: RepositoryName, writer: TagWriter): Promise<TagGuard> {
  const principalId = 'isRetention' in writer ? undefined : writer.principalId
  const rules = (await holdTagRules(tx, principalId)).filter(rule => matchesPattern(rule.pattern, repository))
  return {
    hasRules: rules.length > 0,
    check(tag, change) {
      for (const rule of rules) {
        const refusal = tagRefusal(rule, change, writer)
        if (refusal === undefined || !matcherOf(rule.tags)(tag)) continue
        throw new RegistryError('DENIED', {
          message: `tag ${tag} is ${refusal}: tag rule ${rule.name} (${rule.tags} in ${rule.pattern})`,
          detail: { tag, rule: rule.name },
        })
      }
    },
  }
}

const PAGE = 1_000

/** Checks every tag of a repository, page by page. @throws RegistryError DENIED. */
export async function checkEveryTag(
  tx: Transaction,
  guard: TagGuard,
  repositoryId: number,
  change: TagChange,
): Promise<void> {
  if (!guard.hasRules) return
  for (let last = ''; ;) {
    const tags = await listTags(tx, repositoryId, last, PAGE)
    for (const tag of tags) guard.check(tag, change)
    if (tags.length < PAGE) return
    last = tags.at(-1) ?? last
  }
}

/** Compiling is most of what a match costs. */
const matchers = new LRUCache<string, (tag: string) => boolean>({ max: 500 })

function matcherOf(pattern: string): (tag: string) => boolean {
  const known = matchers.get(pattern)
  if (known !== undefined) return known
  const made = tagMatcher(pattern)
  matchers.set(pattern, made)
  return made
}
