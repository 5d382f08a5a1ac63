import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, afterEach, before, suite, test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, sha256, withRegistry } from '../support/registry.ts'

const name = parseName('single/app')
const BYTES = randomBytes(1000)

void suite('an upload by a single POST (distribution-spec: POST then PUT, single POST)', () => {
  let database: TestDatabase
  let rules: TestRegistry
  before(async () => {
    database = await withDatabase()
    rules = await withRegistry(database.db)
  })
  after(async () => {
    await rules.close()
    await database.close()
  })
  // Nobody was told of the session, so nobody could go on with it.
  afterEach(async () => assert.deepEqual(await database.db.query('select id from upload'), []))

  async function post(stream: Readable, digest = sha256(BYTES), gone = new AbortController()): Promise<void> {
    const id = await rules.registry.startUpload(name, PUSHER, 'sha256', true)
    const body = { stream, start: undefined, length: BYTES.byteLength, signal: gone.signal }
    await rules.registry.finishUpload({ name, id }, digest, body, true)
  }

  test('leaves no session when it succeeds', async () => {
    await post(Readable.from([BYTES]))
    assert.equal((await rules.registry.statBlob(name, sha256(BYTES), PUSHER)).size, BYTES.byteLength)
  })

  test('leaves no session when the content is not what its digest says', async () => {
    const isWrong = (error: unknown): boolean => error instanceof RegistryError && error.code === 'DIGEST_INVALID'
    await assert.rejects(post(Readable.from([BYTES]), sha256('other')), isWrong)
  })

  test('leaves no session when the client dies in the middle, and its bytes go to the trash', async () => {
    const gone = new AbortController()
    const stream = new Readable({ read() {} })
    stream.push(BYTES.subarray(0, 10))
    const before = (await database.db.query('select from trash')).length
    const posted = post(stream, sha256(BYTES), gone)
    gone.abort(new Error('the client is gone'))
    await assert.rejects(posted)
    stream.destroy()
    assert.equal((await database.db.query('select from trash')).length, before + 1)
  })
})
