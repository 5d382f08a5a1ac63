import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { DatabaseUnavailable, sqlState } from '../../src/metadata/database.ts'
import { openEmbedded } from '../../src/metadata/embedded.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { type TestDatabase, testDriver, withEmptyDatabase } from '../support/database.ts'

let test: TestDatabase
before(async () => {
  test = await withEmptyDatabase()
  await test.db.transaction(tx =>
    tx.script('create table note (id bigint primary key, text text); create table other ()'),
  )
})
after(() => test.close())

async function notes(): Promise<number[]> {
  return (await test.db.query<{ id: number }>('select id from note order by id')).map(row => row.id)
}

async function clear(): Promise<void> {
  await test.db.transaction(tx => tx.query('delete from note'))
}

void describe('values', () => {
  void it('come back as the contract says', async () => {
    const rows = await test.db.query(
      `select 9007199254740991::bigint as big, 7::int as small, true as yes, null::text as nothing,
        '\\x00ff'::bytea as bytes, '2024-02-29T12:34:56.789Z'::timestamptz as time, '{"a":[1,null]}'::jsonb as json,
        'infinity'::timestamptz as never_ends, array['a','b,c','"'] as texts, array[1,2]::bigint[] as bigs,
        '42'::xid8 as xid, '0b0e2a6a-53c2-4ff1-8f6f-1d2f1a7f7a11'::uuid as id, array[]::bigint[] as none`,
    )
    const { bytes, ...row } = rows[0] ?? {}
    assert.ok(bytes instanceof Uint8Array)
    assert.deepEqual([...bytes], [0, 255])
    assert.deepEqual(row, {
      big: 9007199254740991,
      small: 7,
      yes: true,
      nothing: null,
      time: new Date('2024-02-29T12:34:56.789Z'),
      json: { a: [1, null] },
      never_ends: Infinity,
      texts: ['a', 'b,c', '"'],
      bigs: [1, 2],
      xid: '42',
      id: '0b0e2a6a-53c2-4ff1-8f6f-1d2f1a7f7a11',
      none: [],
    })
  })

  void it('go in as they come out', async () => {
    const values = [
      Number.MAX_SAFE_INTEGER,
      Buffer.from([0, 1, 255]),
      new Date(1700000000123),
      null,
      ['x', 'y"z', 'a,b\\'],
      [1, 2 ** 40],
      '{"k":"v"}',
      false,
    ]
    const rows = await test.db.query(
      `select $1::bigint as big, $2::bytea as bytes, $3::timestamptz as time, $4::text as nothing, $5::text[] as texts,
        $6::bigint[] as bigs, $7::jsonb as json, $8::boolean as no`,
      values,
    )
    const { bytes, ...row } = rows[0] ?? {}
    assert.deepEqual(Buffer.from(bytes as Uint8Array), values[1])
    assert.deepEqual(row, {
      big: values[0],
      time: values[2],
      nothing: null,
      texts: values[4],
      bigs: values[5],
      json: { k: 'v' },
      no: false,
    })
  })
})

void describe('a transaction', () => {
  void it('commits what its work wrote and gives what it returned', async () => {
    const outcome = await test.db.transaction(async tx => {
      await tx.query('insert into note values ($1)', [1])
      return 'done'
    })
    assert.equal(outcome, 'done')
    assert.deepEqual(await notes(), [1])
    await clear()
  })

  void it('rolls back and throws on what its work threw', async () => {
    const failure = new Error('no')
    const attempt = test.db.transaction(async tx => {
      await tx.query('insert into note values (1)')
      throw failure
    })
    await assert.rejects(attempt, error => error === failure)
    assert.deepEqual(await notes(), [])
  })

  void it('keeps the SQLSTATE and the constraint of an error, and the next one works', async () => {
    const attempt = test.db.transaction(async tx => {
      await tx.query('insert into note values (1)')
      await tx.query('insert into note values (1)')
    })
    await assert.rejects(attempt, error => {
      assert.equal(sqlState(error), '23505')
      assert.equal((error as { constraint?: string }).constraint, 'note_pkey')
      return true
    })
    assert.deepEqual(await notes(), [])
  })

  void it('does not pass for committed when its work swallowed an error', async () => {
    const attempt = test.db.transaction(async tx => {
      await tx.query('insert into note values (1)')
      await tx.query('select 1/0').catch(() => undefined)
    })
    await assert.rejects(attempt, error => sqlState(error) === '22012')
    assert.deepEqual(await notes(), [])
  })

  void it('runs its work again after a serialization failure', async () => {
    let runs = 0
    await test.db.transaction(async tx => {
      runs++
      await tx.query('insert into note values (1)')
      if (runs < 3) await tx.script(`do $$ begin raise sqlstate '40001'; end $$`)
    })
    assert.equal(runs, 3)
    assert.deepEqual(await notes(), [1])
    await clear()
  })

  void it('is unavailable when it loses every race', async () => {
    let runs = 0
    const attempt = test.db.transaction(async tx => {
      runs++
      await tx.script(`do $$ begin raise sqlstate '40P01'; end $$`)
    })
    await assert.rejects(attempt, error => {
      return error instanceof DatabaseUnavailable && sqlState(error.cause) === '40P01'
    })
    assert.equal(runs, 5)
  })

  void it('is not seen by queries outside before it commits', async () => {
    const written = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    const transaction = test.db.transaction(async tx => {
      await tx.query('insert into note values (1)')
      written.resolve()
      await asked.promise
      await tx.query('delete from note where id = 1')
      await tx.query('insert into note values (2)')
    })
    await written.promise
    const outside = notes()
    if (testDriver === 'postgres') assert.deepEqual(await outside, [])
    asked.resolve()
    await transaction
    assert.deepEqual(await outside, testDriver === 'postgres' ? [] : [2])
    await clear()
  })

  void it('refuses statements after its end', async () => {
    const tx = await test.db.transaction(async open => open)
    await assert.rejects(tx.query('select 1'), /over/)
  })

  void it('takes turns with others', async () => {
    await test.db.query('insert into note values (0)')
    const raise = async (): Promise<void> => {
      await test.db.transaction(async tx => {
        await tx.query(`select from note where id = 0 for update`)
        const [row] = await tx.query<{ n: number }>(`select coalesce(text, '0')::int as n from note where id = 0`)
        await tx.query('update note set text = $1 where id = 0', [String((row?.n ?? 0) + 1)])
      })
    }
    await Promise.all(Array.from({ length: 30 }, raise))
    assert.deepEqual(await test.db.query('select text from note where id = 0'), [{ text: '30' }])
    await clear()
  })
})

void describe('the embedded driver', () => {
  void it('gives up a statement that does not end, and goes on', { timeout: 60_000 }, async () => {
    const parent = await mkdtemp(join(tmpdir(), 'berth-test-'))
    const db = await openEmbedded({ directory: join(parent, 'index'), timeoutMs: 2_000 })
    try {
      await db.query('create table kept (id int)')
      await db.query('insert into kept values (1)')
      const forever = 'with recursive n(i) as (select 1 union all select i from n) select count(*) from n'
      await assert.rejects(db.query(forever), DatabaseUnavailable)
      assert.deepEqual(await db.query('select id from kept'), [{ id: 1 }])
    } finally {
      await db.close()
      await rm(parent, { recursive: true })
    }
  })

  void it('opens a directory for one process only', { timeout: 60_000 }, async () => {
    const parent = await mkdtemp(join(tmpdir(), 'berth-test-'))
    const directory = join(parent, 'index')
    const db = await openEmbedded({ directory })
    const module = new URL('../../src/metadata/embedded.ts', import.meta.url).href
    const open = `
      const { openEmbedded } = await import(${JSON.stringify(module)})
      const db = await openEmbedded({ directory: ${JSON.stringify(directory)} })
      await db.close()`
    const openElsewhere = (): Promise<unknown> =>
      promisify(execFile)(process.execPath, ['--input-type=module', '--eval', open])
    try {
      await assert.rejects(openElsewhere(), /another process has the data directory .* open/)
      await assert.rejects(openEmbedded({ directory }), /another process has the data directory .* open/)
      await db.close()
      await openElsewhere()
    } finally {
      await db.close()
      await rm(parent, { recursive: true })
    }
  })
})

void describe('the postgres driver', () => {
  void it('calls a server that refuses connections unavailable', async () => {
    const db = await openPostgres({ url: 'postgres://nobody@127.0.0.1:1/none' })
    await assert.rejects(db.query('select 1'), DatabaseUnavailable)
    await assert.rejects(
      db.transaction(async () => undefined),
      DatabaseUnavailable,
    )
    await db.close()
  })

  if (testDriver === 'postgres') {
    void it('replaces a connection that the server ended', async () => {
      const other = await test.another()
      const attempt = other.transaction(async tx => {
        const [row] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid')
        await test.db.query('select pg_terminate_backend($1)', [row?.pid])
        await tx.query('select 1')
      })
      await assert.rejects(attempt, DatabaseUnavailable)
      assert.deepEqual(await other.transaction(tx => tx.query('select 1 as one')), [{ one: 1 }])
    })
  }
})
