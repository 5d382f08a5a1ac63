import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { describeFault } from '../../src/cli/start-fault.ts'
import { type Database, DatabaseUnavailable, IndexUnusable } from '../../src/metadata/database.ts'
import { refuseOldServer } from '../../src/metadata/postgres.ts'

const withCode = (code: string, more: object = {}): Error => Object.assign(new Error('raw'), { code, ...more })

void describe('what a start that fails says', () => {
  const cases: readonly [string, Error, RegExp][] = [
    ['a wrong password', withCode('28P01', { severity: 'FATAL' }), /refuses the user or the password/],
    ['no such database', withCode('3D000'), /does not exist: create it/],
    ['no right to create tables', withCode('42501'), /may not create tables/],
    [
      'no connection left',
      new DatabaseUnavailable('no answer', { cause: withCode('53300') }),
      /no connection left: raise its max_connections/,
    ],
    [
      'a privileged port',
      withCode('EACCES', { address: '127.0.0.1', port: 80 }),
      /127\.0\.0\.1:80 may not be listened/,
    ],
    ['a foreign directory', withCode('EACCES', { path: '/srv/d' }), /\/srv\/d cannot be written to by this user/],
    ['a full disk', new Error('store', { cause: withCode('ENOSPC', { path: '/srv/d' }) }), /the disk is full/],
    ['a read-only disk', withCode('EROFS', { path: '/srv/d' }), /read-only file system/],
  ]
  for (const [what, error, expected] of cases) {
    void it(`names ${what} in one line`, () => {
      assert.match(describeFault(error), expected)
      assert.doesNotMatch(describeFault(error), /\n/)
    })
  }

  void it('keeps everything known about what nobody foresaw', () => {
    assert.match(describeFault(new TypeError('a bug')), /TypeError: a bug\n\s+at /)
  })
})

void describe('the age of the Postgres server', () => {
  const speaking = (version: string): Pick<Database, 'query'> => ({
    query: async <R extends object>() => [{ version }] as unknown as readonly R[],
  })

  void it('14 and newer are used', async () => {
    for (const version of ['14.0', '18.1 (Debian 18.1-1)', '19beta1']) await refuseOldServer(speaking(version))
  })

  void it('an older one is refused by name', async () => {
    await assert.rejects(refuseOldServer(speaking('13.22')), (error: Error) => {
      assert.ok(error instanceof IndexUnusable)
      assert.match(describeFault(error), /^this is Postgres 13\.22: Berth needs 14 or newer$/)
      return true
    })
  })
})
