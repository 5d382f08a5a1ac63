import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { wantedEntries } from '../../src/sync/platforms.ts'
import { type TagSelection, newestCreated, selectTags, targetName } from '../../src/sync/selection.ts'
import type { Digest } from '../../src/oci/digest.ts'

const ALL: TagSelection = {
  match: ['*'],
  exclude: [],
  versions: undefined,
  prereleases: false,
  newest: undefined,
  newestBy: 'version',
}
const HEX = 'a'.repeat(64)
const TAGS = ['1.9.0', 'v1.10.0', '1.10.0', '2.0.0-rc.1', '2.0.0', '1.2', 'latest', 'nightly-1', `sha256-${HEX}.sig`]

void suite('which tags a sync copies', () => {
  const table: readonly (readonly [string, Partial<TagSelection>, readonly string[]])[] = [
    ['all but those that belong to another image', {}, TAGS.slice(0, -1)],
    ['by a glob', { match: ['nightly-*', 'latest'] }, ['latest', 'nightly-1']],
    ['by a regular expression that matches whole tags', { match: ['/v?1\\.1\\d\\.0/'] }, ['v1.10.0', '1.10.0']],
    ['but those that are left out', { match: ['1.*'], exclude: ['1.2'] }, ['1.9.0', '1.10.0']],
    ['of a range of versions (semver.org)', { versions: '>=1.10 <2' }, ['v1.10.0', '1.10.0']],
    ['without pre-releases', { versions: '>=1.10' }, ['v1.10.0', '1.10.0', '2.0.0']],
    ['with pre-releases', { versions: '>=2.0.0-0', prereleases: true }, ['2.0.0-rc.1', '2.0.0']],
    ['the highest versions, where v1 and 1 are one', { newest: 2 }, ['v1.10.0', '1.10.0', '2.0.0']],
    ['the highest of a range', { versions: '<1.10', newest: 5 }, ['1.9.0']],
    [
      'all that may be newest where their age is not in their names',
      { newest: 1, newestBy: 'created' },
      TAGS.slice(0, -1),
    ],
  ]
  for (const [what, selection, expected] of table) {
    test(what, () => assert.deepEqual(selectTags({ ...ALL, ...selection }, TAGS), expected))
  }

  test('of those whose age is known the youngest, and one of which nothing is known last', () => {
    const at = (year: number): Date => new Date(Date.UTC(year, 0))
    const known = [
      { tag: 'old', created: at(2020) },
      { tag: 'unknown', created: undefined },
      { tag: 'new', created: at(2026) },
    ]
    assert.deepEqual(newestCreated(2, known), ['new', 'old'])
    assert.deepEqual(newestCreated(5, known), ['new', 'old', 'unknown'])
  })
})

void suite('what a repository is called where it goes', () => {
  const table = [
    [{ stripPrefix: undefined, addPrefix: undefined }, 'team/app', 'team/app'],
    [{ stripPrefix: undefined, addPrefix: 'hub' }, 'library/nginx', 'hub/library/nginx'],
    [{ stripPrefix: 'library', addPrefix: 'hub' }, 'library/nginx', 'hub/nginx'],
    [{ stripPrefix: 'library', addPrefix: undefined }, 'library2/nginx', 'library2/nginx'],
    [{ stripPrefix: 'team', addPrefix: undefined }, 'team', 'team'],
    [{ stripPrefix: undefined, addPrefix: 'x'.repeat(200) }, 'y'.repeat(100), undefined],
  ] as const
  for (const [renaming, name, expected] of table) {
    test(`${name} with ${JSON.stringify(renaming).slice(0, 60)}`, () =>
      assert.equal(targetName(renaming, name), expected))
  }
})

void suite('which entries of an index a sync copies: image-spec, "Image Index"', () => {
  const digest = (letter: string): Digest => `sha256:${letter.repeat(64)}` as Digest
  const platform = (os: string, architecture: string, variant?: string): object => ({
    platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
  })
  const about = (letter: string): object => ({
    ...platform('unknown', 'unknown'),
    annotations: { 'vnd.docker.reference.digest': digest(letter) },
  })
  const entries: Readonly<Record<string, object>> = {
    a: platform('linux', 'amd64'),
    b: platform('linux', 'arm64', 'v8'),
    c: platform('linux', 'arm', 'v7'),
    d: about('a'),
    e: about('b'),
    f: {},
  }
  const manifests = Object.entries(entries).map(([letter, more]) => ({ digest: digest(letter), ...more }))
  const index = Buffer.from(JSON.stringify({ manifests }))
  const table: readonly (readonly [readonly string[] | undefined, string])[] = [
    [undefined, 'abcdef'],
    [['linux/amd64'], 'adf'],
    [['linux/arm64'], 'bef'],
    [['linux/arm64/v8', 'linux/arm/v6'], 'bef'],
    [['windows/amd64'], 'f'],
  ]
  for (const [platforms, expected] of table) {
    test(`for ${platforms?.join(', ') ?? 'all'}: also what is about them, and what names no platform`, () => {
      const isWanted = wantedEntries(index, platforms)
      assert.equal(
        Object.keys(entries)
          .filter(letter => isWanted(digest(letter)))
          .join(''),
        expected,
      )
    })
  }
})
