import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { suite, test } from 'node:test'
import type { RepositoryFacts, TagFacts } from '../../src/retention/facts.ts'
import { type PlanRules, planRetention } from '../../src/retention/plan.ts'
import { type KeepRule, describeRule, parseRule } from '../../src/retention/rules.ts'
import { seeded } from '../support/random.ts'

const DAY_MS = 86_400_000
const NOW = new Date('2026-11-24T12:00:00Z')
const ago = (days: number): Date => new Date(NOW.getTime() - days * DAY_MS)
const digestOf = (letter: string): string => `sha256:${letter.repeat(64)}`
const sig = (letter: string): string => `sha256-${letter.repeat(64)}.sig`

/** A tag in short: name, days since its push, days since its last pull, and more. */
interface Short {
  readonly name: string
  readonly pushed?: number
  readonly pulled?: number
  /** The digest, by a letter. */
  readonly of?: string
  readonly about?: string
}

function tagFacts({ name, pushed = 0, pulled, of = 'a', about }: Short): TagFacts {
  return {
    name,
    digest: digestOf(of),
    pushedAt: ago(pushed),
    pulledAt: pulled === undefined ? undefined : ago(pulled),
    subject: about === undefined ? undefined : digestOf(about),
  }
}

function factsOf(tags: readonly Short[], more: Partial<RepositoryFacts> = {}): RepositoryFacts {
  return { now: NOW, countedSince: ago(1_000), untagged: [], subjects: new Map(), tags: tags.map(tagFacts), ...more }
}

function rulesOf(...texts: readonly string[]): KeepRule[] {
  return texts.map(text => {
    const rule = parseRule(text)
    assert.ok(rule !== undefined, text)
    return rule
  })
}

interface Row {
  readonly what: string
  readonly rules: readonly string[]
  readonly of?: readonly string[]
  readonly tags: readonly Short[]
  readonly more?: Partial<RepositoryFacts>
  /** What is to be answered: each tag with `keep` or `go`, the rule where one keeps it, and the reason. */
  readonly plan: readonly string[]
}

const ROWS: readonly Row[] = [
  {
    what: 'without a rule everything goes, with the reason',
    rules: [],
    tags: [{ name: 'a', pushed: 40, pulled: 35 }],
    plan: ['a go: no rule keeps it: pushed 40 days ago, last pulled 35 days ago'],
  },
  {
    what: 'newest: the last pushed stay',
    rules: ['newest 2'],
    tags: [
      { name: 'a', pushed: 3 },
      { name: 'b', pushed: 1.5 },
      { name: 'c', pushed: 0 },
    ],
    plan: [
      'a go: no rule keeps it: pushed 3 days ago, not pulled since',
      'b keep 1: newest 2: pushed 36 hours ago',
      'c keep 1: newest 2: pushed 0 minutes ago',
    ],
  },
  {
    what: 'newest: those pushed at the same time as the last that fits stay',
    rules: ['newest 1'],
    tags: [
      { name: 'a', pushed: 5 },
      { name: 'b', pushed: 5 },
      { name: 'c', pushed: 6 },
    ],
    plan: [
      'a keep 1: newest 1: pushed 5 days ago',
      'b keep 1: newest 1: pushed 5 days ago',
      'c go: no rule keeps it: pushed 6 days ago, not pulled since',
    ],
  },
  {
    what: 'newest: fewer than the number stay all',
    rules: ['newest 5'],
    tags: [{ name: 'a', pushed: 500 }],
    plan: ['a keep 1: newest 5: pushed 500 days ago'],
  },
  {
    what: 'newest: only tags of its pattern take places and are kept',
    rules: ['newest 1 of main-*'],
    tags: [
      { name: 'main-1', pushed: 9 },
      { name: 'main-2', pushed: 8 },
      { name: 'zz', pushed: 1 },
    ],
    plan: [
      'main-1 go: no rule keeps it: pushed 9 days ago, not pulled since',
      'main-2 keep 1: newest 1 of main-*: pushed 8 days ago',
      'zz go: no rule keeps it: pushed 24 hours ago, not pulled since',
    ],
  },
  {
    what: 'versions: by precedence, not by text or time (semver.org 2.0.0, 11)',
    rules: ['versions 2'],
    tags: [
      { name: '1.9.0', pushed: 1 },
      { name: '1.10.0', pushed: 30 },
      { name: '1.10.0-rc.1', pushed: 0 },
      { name: 'latest', pushed: 0 },
    ],
    plan: [
      '1.9.0 go: no rule keeps it: pushed 24 hours ago, not pulled since',
      '1.10.0 keep 1: versions 2: version 1 from the highest',
      '1.10.0-rc.1 keep 1: versions 2: version 2 from the highest',
      'latest go: no rule keeps it: pushed 0 minutes ago, not pulled since',
    ],
  },
  {
    what: 'versions: two tags of one version take one place',
    rules: ['versions 2 of /v?\\d+\\.\\d+\\.\\d+/'],
    tags: [
      { name: '1.0.0', pushed: 3 },
      { name: '2.0.0', pushed: 2 },
      { name: 'v2.0.0', pushed: 2 },
      { name: '2.1.0-rc.1', pushed: 0 },
      { name: '0.9.0', pushed: 2 },
    ],
    plan: [
      '1.0.0 keep 1: versions 2 of /v?\\d+\\.\\d+\\.\\d+/: version 2 from the highest',
      '2.0.0 keep 1: versions 2 of /v?\\d+\\.\\d+\\.\\d+/: version 1 from the highest',
      'v2.0.0 keep 1: versions 2 of /v?\\d+\\.\\d+\\.\\d+/: version 1 from the highest',
      '2.1.0-rc.1 go: no rule keeps it: pushed 0 minutes ago, not pulled since',
      '0.9.0 go: no rule keeps it: pushed 2 days ago, not pulled since',
    ],
  },
  {
    what: 'pushed within: to the second, and the future counts as now',
    rules: ['pushed within 14d'],
    tags: [
      { name: 'a', pushed: 14 },
      { name: 'b', pushed: 14.0001 },
      { name: 'c', pushed: -3 },
    ],
    plan: [
      'a keep 1: pushed within 14d: pushed 14 days ago',
      'b go: no rule keeps it: pushed 14 days ago, not pulled since',
      'c keep 1: pushed within 14d: pushed 0 minutes ago',
    ],
  },
  {
    what: 'pulled within: a pull, or the push where there was none',
    rules: ['pulled within 30d'],
    tags: [
      { name: 'a', pushed: 400, pulled: 29 },
      { name: 'b', pushed: 400, pulled: 31 },
      { name: 'c', pushed: 29 },
      { name: 'd', pushed: 31 },
      { name: 'e', pushed: 1, pulled: 200 },
    ],
    plan: [
      'a keep 1: pulled within 30d: pushed 400 days ago, last pulled 29 days ago',
      'b go: no rule keeps it: pushed 400 days ago, last pulled 31 days ago',
      'c keep 1: pulled within 30d: pushed 29 days ago, not pulled since',
      'd go: no rule keeps it: pushed 31 days ago, not pulled since',
      'e keep 1: pulled within 30d: pushed 24 hours ago, last pulled 200 days ago',
    ],
  },
  {
    what: 'an unknown last pull is not old: what is older than the counting counts as pulled when it began (goharbor/harbor #11837)',
    rules: ['pulled within 30d'],
    tags: [{ name: 'a', pushed: 400 }],
    more: { countedSince: ago(10) },
    plan: ['a keep 1: pulled within 30d: pushed 400 days ago, not pulled since pulls are counted (10 days ago)'],
  },
  {
    what: 'and is old when the counting has gone on for long enough',
    rules: ['pulled within 30d'],
    tags: [{ name: 'a', pushed: 400 }],
    more: { countedSince: ago(31) },
    plan: ['a go: no rule keeps it: pushed 400 days ago, not pulled since pulls are counted (31 days ago)'],
  },
  {
    what: 'the first rule that keeps is named, and any one is enough',
    rules: ['all of latest', 'pulled within 7d', 'newest 1'],
    tags: [
      { name: 'a', pushed: 9, pulled: 1 },
      { name: 'b', pushed: 1 },
      { name: 'c', pushed: 90 },
      { name: 'latest', pushed: 900 },
    ],
    plan: [
      'a keep 2: pulled within 7d: pushed 9 days ago, last pulled 24 hours ago',
      'b keep 2: pulled within 7d: pushed 24 hours ago, not pulled since',
      'c go: no rule keeps it: pushed 90 days ago, not pulled since',
      'latest keep 1: all of latest: whatever happens',
    ],
  },
  {
    what: 'tags that the policy is not about are not looked at, and take no places',
    rules: ['newest 1'],
    of: ['pr-*', 'test-*'],
    tags: [
      { name: 'pr-1', pushed: 3 },
      { name: 'test-1', pushed: 2 },
      { name: 'v1', pushed: 1 },
    ],
    plan: [
      'pr-1 go: no rule keeps it: pushed 3 days ago, not pulled since',
      'test-1 keep 1: newest 1: pushed 2 days ago',
    ],
  },
  {
    what: 'one digest under several tags: each tag for itself (goharbor/harbor #8717)',
    rules: ['all of prod'],
    tags: [{ name: 'prod' }, { name: 'uat', pushed: 3 }],
    plan: [
      'prod keep 1: all of prod: whatever happens',
      'uat go: no rule keeps it: pushed 3 days ago, not pulled since',
    ],
  },
  {
    what: 'a signature stays and goes with what it signs, also where the policy is not about its tag',
    rules: ['all of pr-2'],
    of: ['pr-*'],
    tags: [
      { name: 'pr-1', of: 'a', pushed: 3 },
      { name: 'pr-2', of: 'b' },
      { name: 'v1', of: 'c' },
      { name: sig('a'), of: 'd' },
      { name: sig('b'), of: 'e' },
      { name: sig('c'), of: 'f' },
    ],
    plan: [
      'pr-1 go: no rule keeps it: pushed 3 days ago, not pulled since',
      'pr-2 keep 1: all of pr-2: whatever happens',
      `${sig('a')} go: it is about pr-1, which goes`,
    ],
  },
  {
    what: 'a manifest with a subject (distribution-spec, Referrers) follows it under whatever tag, and takes no place',
    rules: ['newest 1 of v*'],
    tags: [
      { name: 'v1', of: 'a', pushed: 3 },
      { name: 'v2', of: 'b', pushed: 2 },
      { name: 'v2-sbom', of: 'c', about: 'b', pushed: 1 },
      { name: 'v1-sbom', of: 'd', about: 'a', pushed: 0 },
    ],
    plan: [
      'v1 go: no rule keeps it: pushed 3 days ago, not pulled since',
      'v2 keep 1: newest 1 of v*: pushed 2 days ago',
      'v2-sbom keep: it is about v2, which stays',
      'v1-sbom go: it is about v1, which goes',
    ],
  },
  {
    what: 'a signature of an image inside an index stays with the index (cosign sign --recursive)',
    rules: ['all of v1'],
    tags: [
      { name: 'v1', of: 'a' },
      { name: sig('b'), of: 'c' },
    ],
    more: { subjects: new Map([[digestOf('b'), [digestOf('a')]]]) },
    plan: ['v1 keep 1: all of v1: whatever happens', `${sig('b')} keep: it is about v1, which stays`],
  },
  {
    what: 'a signature of an attestation of an image goes along the chain',
    rules: [],
    tags: [
      { name: sig('b'), of: 'c' },
      { name: `sha256-${'a'.repeat(64)}.att`, of: 'b' },
      { name: 'v1', of: 'a', pushed: 3 },
    ],
    plan: [
      `${sig('b')} go: it is about sha256-${'a'.repeat(64)}.att, which goes`,
      `sha256-${'a'.repeat(64)}.att go: it is about v1, which goes`,
      'v1 go: no rule keeps it: pushed 3 days ago, not pulled since',
    ],
  },
  {
    what: 'a signature of what is here without a tag stays; of what is gone it is judged like any tag, but takes no place',
    rules: ['pushed within 2d', 'newest 3'],
    tags: [
      { name: sig('a'), of: 'd', pushed: 9 },
      { name: sig('b'), of: 'e', pushed: 9 },
      { name: sig('c'), of: 'f', pushed: 1 },
    ],
    more: { subjects: new Map([[digestOf('a'), []]]) },
    plan: [
      `${sig('a')} keep: what it is about is here, without a tag`,
      `${sig('b')} go: what it is about is gone: pushed 9 days ago, not pulled since`,
      `${sig('c')} keep 1: pushed within 2d: pushed 24 hours ago`,
    ],
  },
  {
    what: 'what is kept whatever happens is kept without what it is about, and what is about it as well',
    rules: ['all of sha256-*.att'],
    tags: [
      { name: 'v1', of: 'a', pushed: 3 },
      { name: `sha256-${'a'.repeat(64)}.att`, of: 'b' },
      { name: sig('b'), of: 'c' },
    ],
    plan: [
      'v1 go: no rule keeps it: pushed 3 days ago, not pulled since',
      `sha256-${'a'.repeat(64)}.att keep 1: all of sha256-*.att: whatever happens`,
      `${sig('b')} keep: it is about sha256-${'a'.repeat(64)}.att, which stays`,
    ],
  },
  {
    what: 'names that go round in a circle stay',
    rules: [],
    tags: [
      { name: sig('a'), of: 'b' },
      { name: sig('b'), of: 'a' },
    ],
    plan: [
      `${sig('a')} keep: it is about ${sig('b')}, which stays`,
      `${sig('b')} keep: it is about ${sig('a')}, which stays`,
    ],
  },
  {
    what: 'what has no sound time is kept by the rules about time',
    rules: ['pulled within 1d'],
    tags: [{ name: 'a', pushed: Number.NaN }],
    plan: ['a keep 1: pulled within 1d: pushed NaN minutes ago, not pulled since pulls are counted (1000 days ago)'],
  },
]

void suite('what a policy does to a repository', () => {
  for (const { what, rules, of = ['*'], tags, more, plan } of ROWS) {
    test(what, async () => {
      const { tags: verdicts } = await planRetention(
        { tags: of, rules: rulesOf(...rules), untagged: false },
        factsOf(tags, more),
      )
      assert.deepEqual(
        verdicts.map(({ name, goes, rule, reason }) => {
          return `${name} ${goes ? 'go' : 'keep'}${rule === undefined ? '' : ` ${rule}`}: ${reason}`
        }),
        plan,
      )
    })
  }

  test('untagged manifests go by the rules about time and no pattern, where the policy is about them', async () => {
    const untagged = [
      { digest: digestOf('a'), pushedAt: ago(9), pulledAt: ago(1) },
      { digest: digestOf('b'), pushedAt: ago(9), pulledAt: undefined },
      { digest: digestOf('c'), pushedAt: ago(1), pulledAt: undefined },
    ]
    const policy = {
      tags: ['*'],
      rules: rulesOf('newest 10', 'pushed within 99d of *', 'pulled within 2d'),
      untagged: true,
    }
    const goes = async (rules: PlanRules) =>
      (await planRetention(rules, factsOf([], { untagged }))).untagged.map(({ name, goes: isGoing, rule }) => [
        name,
        isGoing,
        rule,
      ])
    assert.deepEqual(await goes(policy), [
      [digestOf('a'), false, 3],
      [digestOf('b'), true, undefined],
      [digestOf('c'), false, 3],
    ])
    assert.deepEqual(await goes({ ...policy, untagged: false }), [])
  })

  test('rules are written as they are read', () => {
    for (const text of [
      'newest 10',
      'versions 3 of v*',
      'pushed within 14d',
      'pulled within 36h of main-*',
      'all of latest',
    ]) {
      assert.deepEqual(rulesOf(text).map(describeRule), [text])
    }
    for (const text of [
      '',
      'newest',
      'newest ten',
      'newest 10 of',
      'pushed 14d',
      'pushed within 14',
      'pulled within 0d',
      'all latest',
      'none',
    ]) {
      assert.equal(parseRule(text), undefined, text)
    }
  })

  test('what a keep rule says stays never goes, in any company of rules and tags', async () => {
    const seed = randomInt(2 ** 31)
    const random = seeded(seed)
    const names = [
      'latest',
      'main-1',
      'main-2',
      'pr-1',
      'pr-2',
      '1.0.0',
      'v1.0.0',
      '1.2.0',
      '2.0.0-rc.1',
      '2.0.0',
      '10.0.0',
    ]
    const rules = rulesOf(
      'newest 1',
      'newest 3',
      'versions 1',
      'versions 2 of v*',
      'pushed within 5d',
      'pushed within 5d of pr-*',
      'pulled within 5d',
      'all of latest',
      'newest 1 of main-*',
    )
    for (let round = 0; round < 3_000; round++) {
      const facts = factsOf(
        names
          .filter(() => random.next() < 0.7)
          .map(name => ({
            name,
            of: random.pick(['a', 'b', 'c']),
            pushed: random.between(0, 12),
            ...(random.next() < 0.5 ? {} : { pulled: random.between(0, 12) }),
            ...(random.next() < 0.15 ? { about: random.pick(['a', 'b', 'c', 'd']) } : {}),
          })),
        { countedSince: ago(random.pick([3, 8, 1_000])) },
      )
      const of = random.pick([['*'], ['pr-*', 'main-*'], ['/v?\\d.*/']])
      const chosen = rules.filter(() => random.next() < 0.4)
      const { tags } = await planRetention({ tags: of, rules: chosen, untagged: false }, facts)
      const going = new Set(tags.filter(({ goes }) => goes).map(({ name }) => name))
      const say = (name: string): string =>
        `seed ${seed}, round ${round}: ${name} goes, of ${chosen.map(describeRule).join('; ')}`
      const is = (patterns: readonly string[], name: string): boolean =>
        patterns.some(pattern =>
          new RegExp(`^${pattern.startsWith('/') ? pattern.slice(1, -1) : pattern.replaceAll('*', '.*')}$`).test(name),
        )
      const own = facts.tags.filter(({ name, subject }) => subject === undefined && is(of, name))
      // The tags that each rule keeps, found in another way than the plan does.
      for (const rule of chosen) {
        const among = own.filter(({ name }) => is([rule.tags ?? '*'], name))
        for (const tag of among) {
          const days = (at: Date): number => (NOW.getTime() - at.getTime()) / DAY_MS
          const isKept =
            rule.keep === 'all' ||
            (rule.keep === 'pushed' && days(tag.pushedAt) <= rule.withinSeconds / 86_400) ||
            (rule.keep === 'pulled' &&
              Math.min(days(tag.pushedAt), days(facts.countedSince), days(tag.pulledAt ?? tag.pushedAt)) <=
                rule.withinSeconds / 86_400) ||
            (rule.keep === 'newest' && among.filter(other => other.pushedAt > tag.pushedAt).length < rule.count) ||
            (rule.keep === 'versions' &&
              isAmongHighest(
                tag.name,
                among.map(({ name }) => name),
                rule.count,
              ))
          if (isKept) assert.ok(!going.has(tag.name), say(`${tag.name} of ${describeRule(rule)}`))
        }
      }
      // Nothing that the policy is not about goes, but what is about something that goes.
      for (const { name, subject } of facts.tags) {
        if (subject === undefined && !is(of, name)) assert.ok(!going.has(name), say(name))
      }
    }
  })
})

/** Whether a version is among the `count` highest different ones, by the rules of semver.org 2.0.0 as far as these names go. */
function isAmongHighest(name: string, among: readonly string[], count: number): boolean {
  const order = (text: string): number | undefined => {
    const match = /^v?(\d+)\.(\d+)\.(\d+)(-rc\.1)?$/.exec(text)
    if (match === null) return undefined
    return Number(match[1]) * 1e6 + Number(match[2]) * 1e3 + Number(match[3]) - (match[4] === undefined ? 0 : 0.5)
  }
  const own = order(name)
  if (own === undefined) return false
  return new Set(among.map(order).filter(other => other !== undefined && other > own)).size < count
}
