import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RequestedWork } from '../../src/access/actor.ts'
import { LOCAL, withAdministration } from '../support/administration.ts'
import { withDatabase } from '../support/database.ts'
import { makePolicy } from '../support/retention.ts'

void test('what is asked for wakes its job, which need not look for it all the time', async () => {
  const index = await withDatabase()
  const asked: RequestedWork[] = []
  const administration = withAdministration(index.db, {
    onWorkRequested: work => void asked.push(work),
    storage: { names: ['a', 'b'], ownership: () => Promise.resolve('ours'), adopt: () => Promise.resolve() },
  })
  const next = async (work: () => Promise<unknown>): Promise<readonly RequestedWork[]> => {
    asked.length = 0
    await work()
    return [...asked]
  }
  try {
    await makePolicy(index.db, 'nightly', { rules: ['all'] })
    const ask = { policy: 'nightly', goal: 'run', confirmed: false } as const
    assert.deepEqual(await next(() => administration.startRetention(LOCAL, ask)), ['retain'])
    await index.db.transaction(tx => tx.script(`update retention_run set state = 'asks'`))
    const [run] = await index.db.query<{ id: number }>('select id from retention_run')
    assert.deepEqual(await next(() => administration.confirmRetention(LOCAL, String(run?.id))), ['retain'])
    const copy = { to: 'b', atOnce: 1, bytesPerSecond: undefined }
    assert.deepEqual(await next(() => administration.startStorageCopy(LOCAL, copy)), ['move content'])
    await assert.rejects(administration.startStorageCopy(LOCAL, copy), /a move is under way/)
    assert.deepEqual(asked, ['move content'], 'what is refused wakes nothing')
    assert.deepEqual(await next(() => administration.startCollection(LOCAL)), ['collection'])
    assert.deepEqual(await next(() => administration.startVerification(LOCAL)), ['verification'])
  } finally {
    await index.close()
  }
})
