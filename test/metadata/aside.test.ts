import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { isAside } from '../../src/metadata/aside.ts'

void describe('what a statement writes', () => {
  const aside = {
    'a read': 'select id from manifest where id = $1',
    'a read that locks': 'select id from manifest where id = $1 for update skip locked',
    'a read that locks less': 'select id from repository for no key update',
    'an insert of a count':
      'insert into tag_pull (name) values ($1) on conflict (name) do update set pulls = excluded.pulls',
    'two counts': 'with a as (insert into tag_pull select) insert into manifest_pull select',
    'the state of an upload': 'update upload set "offset" = $1 where id = $2',
  }
  const more = {
    'a tag': 'insert into tag (name) values ($1)',
    'a manifest beside a count': 'with a as (insert into tag_pull select) update manifest set deleted_at = now()',
    'a link in capitals': 'DELETE FROM repository_blob WHERE blob_id = $1',
    'an update on a line of its own': 'with free as (select 1)\n     update\n  blob b set unlinked_at = null',
    'a table that is not known': 'insert into something (name) values ($1)',
    'a whole table': 'truncate tag_pull',
    'a schema': 'alter table audit add column x int',
  }
  for (const [what, text] of Object.entries(aside)) {
    void it(`stands aside: ${what}`, () => assert.equal(isAside(text), true))
  }
  for (const [what, text] of Object.entries(more)) {
    void it(`may change what is in the registry: ${what}`, () => assert.equal(isAside(text), false))
  }

  void it('stands aside only where nothing is removed along: no foreign key points to such a table from another', async () => {
    const directory = new URL('../../migrations/', import.meta.url)
    const texts = await Promise.all((await readdir(directory)).map(name => readFile(new URL(name, directory), 'utf8')))
    const sql = texts.join('\n')
    assert.ok(sql.includes('create table'), 'the migrations were read')
    assert.doesNotMatch(sql, /create (?:or replace )?(?:function|trigger|rule)/i, 'what writes by itself is not seen')
    for (const [, body = '', name = ''] of sql.matchAll(/create table (?=(\w+ \([\s\S]*?\n\);))(\w+)/g)) {
      for (const [, target = ''] of body.matchAll(/references (\w+)/g)) {
        const removal = `delete from ${target}`
        assert.ok(!isAside(removal) || isAside(`delete from ${name}`), `${name} refers to ${target}`)
      }
    }
  })
})
