import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { parseChallenges } from '../../src/mirror/challenge.ts'

void suite('challenges of upstreams: RFC 9110 section 11.6.1', () => {
  const table: readonly (readonly [string, string, readonly (readonly [string, Record<string, string>])[]])[] = [
    [
      'one of Docker Hub',
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
      [
        [
          'bearer',
          { realm: 'https://auth.docker.io/token', service: 'registry.docker.io', scope: 'repository:a/b:pull' },
        ],
      ],
    ],
    [
      'two in one header',
      'Basic realm="a, b", Bearer realm="https://x.example/t"',
      [
        ['basic', { realm: 'a, b' }],
        ['bearer', { realm: 'https://x.example/t' }],
      ],
    ],
    ['quoted pairs and spaces', 'bearer  realm = "a\\"b" , Service=c', [['bearer', { realm: 'a"b', service: 'c' }]]],
    [
      'a scheme without parameters',
      'Negotiate, Basic realm=x',
      [
        ['negotiate', {}],
        ['basic', { realm: 'x' }],
      ],
    ],
    ['nothing', '', []],
    ['parameters without a scheme', 'realm="x"', []],
    ['a quotation without an end', 'Bearer realm="x', [['bearer', {}]]],
  ]
  for (const [what, header, expected] of table) {
    void test(`${what} is read`, () => {
      assert.deepEqual(
        parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]),
        expected,
      )
    })
  }

  void test('of a header that is too long only the beginning is read', () => {
    const offers = parseChallenges(`Bearer realm=x ${',a '.repeat(100_000)}`)
    assert.deepEqual(offers[0], { scheme: 'bearer', parameters: new Map([['realm', 'x']]) })
    assert.ok(offers.length < 4_000)
  })
})
