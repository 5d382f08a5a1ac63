import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AuditTrail } from '../../src/access/audit-trail.ts'
import { listAudit } from '../../src/metadata/audit.ts'
import { withDatabase } from '../support/database.ts'

void test('what cannot be written as it is keeps nothing else from the audit (RFC 7493 section 2.1)', async () => {
  const index = await withDatabase()
  try {
    const errors: unknown[] = []
    const trail = new AuditTrail(index.db, error => errors.push(error))
    // Half a surrogate pair is what a text is left with that was cut in the middle of one.
    trail.add({ kind: 'login', outcome: 'refused', actor: 'a', detail: { reason: ['nul \0', 'half \ud83d'] } })
    trail.add({ kind: 'login', outcome: 'refused', actor: 'b', detail: { reason: 'wrong password' } })
    await trail.flush()
    assert.deepEqual(errors, [])
    const entries = await listAudit(index.db, {}, undefined, 10)
    assert.deepEqual(
      entries.map(({ actor, detail }) => [actor, detail['reason']]),
      [
        ['b', 'wrong password'],
        ['a', ['nul \ufffd', 'half \ufffd']],
      ],
    )
  } finally {
    await index.close()
  }
})
