import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { createServer, get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, suite, test } from 'node:test'
import { findLocalSockets, listenLocally } from '../src/local-socket.ts'

/** What the socket of this process is called: process, machine since its start, chance. */
const OWN = new RegExp(`^${process.pid}-([0-9a-f]{6})-[0-9a-f]{6}\\.sock$`)

async function workDirectory(t: TestContext, below = ''): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'berth-test-socket-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  const directory = join(root, below)
  await mkdir(directory, { recursive: true })
  return directory
}

/** Serves on the socket of a data directory; answers what closes it. */
async function serveIn(t: TestContext, dataDir: string): Promise<() => Promise<void>> {
  const server = createServer((_req, res) => res.end('here'))
  await listenLocally(server, dataDir)
  const close = async (): Promise<void> => {
    if (!server.listening) return
    server.close()
    await once(server, 'close')
  }
  t.after(close)
  return close
}

async function ask(socketPath: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  get({ socketPath, path: '/' }, response => {
    let text = ''
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    response.on('end', () => resolve(text)).on('error', reject)
  }).on('error', reject)
  return await promise
}

/** Leaves a socket in a directory that nobody listens on any more. */
async function leaveSocket(directory: string, name: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(join(directory, name))}, () => process.kill(process.pid, 'SIGKILL'))`
  await once(spawn(process.execPath, ['-e', script], { stdio: 'ignore' }), 'close')
  assert.ok((await readdir(directory)).includes(name))
}

void suite('the administrator’s socket', () => {
  test('is for the user who runs the server and nobody else, and goes when the server stops', async t => {
    const dataDir = await workDirectory(t)
    const close = await serveIn(t, dataDir)
    const run = join(dataDir, 'run')
    assert.equal((await stat(run)).mode & 0o777, 0o700)
    const [name = ''] = await readdir(run)
    assert.match(name, OWN)
    assert.equal((await stat(join(run, name))).mode & 0o777, 0o600)
    const [path = ''] = await findLocalSockets(dataDir)
    assert.equal(await ask(path), 'here')
    await close()
    assert.deepEqual(await readdir(run), [])
    assert.deepEqual(await findLocalSockets(dataDir), [])
  })

  test('those that dead servers of this machine left are passed over, and removed at the next start; other files stay', async t => {
    const dataDir = await workDirectory(t)
    const run = join(dataDir, 'run')
    const close = await serveIn(t, dataDir)
    const machine = OWN.exec((await readdir(run))[0] ?? '')?.[1] ?? ''
    await close()
    await leaveSocket(run, `1-${machine}-000000.sock`)
    await leaveSocket(run, `${process.pid}-${machine}-000000.sock`)
    await writeFile(join(run, 'other'), '')
    assert.deepEqual(await findLocalSockets(dataDir), [])
    await serveIn(t, dataDir)
    const [own = '', other, ...more] = (await readdir(run)).toSorted()
    assert.match(own, OWN)
    assert.deepEqual([other, ...more], ['other'])
  })

  test('two servers with the same process id (every container’s first is 1) do not take each other’s', async t => {
    const dataDir = await workDirectory(t)
    const closeFirst = await serveIn(t, dataDir)
    await serveIn(t, dataDir)
    assert.equal((await findLocalSockets(dataDir)).length, 2)
    await closeFirst()
    assert.equal((await findLocalSockets(dataDir)).length, 1)
  })

  test('one of another machine, which cannot be asked from here, stays until its server has said nothing for a day', async t => {
    const dataDir = await workDirectory(t)
    const run = join(dataDir, 'run')
    await mkdir(run)
    const elsewhere = ['1-000000-000001.sock', '1-000000-000002.sock', '7.sock']
    for (const name of elsewhere) await leaveSocket(run, name)
    const longAgo = new Date(Date.now() - 25 * 3_600_000)
    await utimes(join(run, '1-000000-000002.sock'), longAgo, longAgo)
    await serveIn(t, dataDir)
    const left = (await readdir(run)).filter(name => elsewhere.includes(name))
    assert.deepEqual(left.toSorted(), ['1-000000-000001.sock', '7.sock'])
  })

  test('a directory that was open to others is closed to them', async t => {
    const dataDir = await workDirectory(t)
    await mkdir(join(dataDir, 'run'), { mode: 0o755 })
    await serveIn(t, dataDir)
    assert.equal((await stat(join(dataDir, 'run'))).mode & 0o777, 0o700)
  })

  test('a path that is too long for a socket (unix(7): 108 bytes) does, from any working directory', async t => {
    const dataDir = await workDirectory(t, 'long/'.repeat(40))
    const close = await serveIn(t, dataDir)
    const [path = ''] = await findLocalSockets(dataDir)
    assert.equal(await ask(path), 'here')
    assert.equal((await readdir(join(dataDir, 'run'))).length, 1)
    await close()
    assert.deepEqual(await readdir(join(dataDir, 'run')), [])
  })

  test('where no server ever ran there is none', async t => {
    assert.deepEqual(await findLocalSockets(join(await workDirectory(t), 'none')), [])
  })
})
