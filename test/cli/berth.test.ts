import assert from 'node:assert/strict'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { BERTH, berth } from '../support/command.ts'
import { createDatabase, startServer } from '../support/server.ts'

const STACK = /\n\s+at /

let work: string
before(async () => {
  work = await mkdtemp(join(tmpdir(), 'berth-test-cli-'))
})
after(() => rm(work, { recursive: true, force: true }))

void describe('the command line', () => {
  void it('says what it can do, for all commands and for each', async () => {
    for (const args of [[], ['help'], ['--help'], ['-h']]) {
      const { code, stdout } = await berth(args)
      assert.equal(code, 0)
      assert.match(stdout, /berth serve .*\n(.*\n)*.*berth config check/)
    }
    for (const verb of ['serve', 'config', 'health', 'version']) {
      const asked = await berth(['help', verb])
      assert.match(asked.stdout, new RegExp(`^berth ${verb}`))
      assert.deepEqual(await berth([verb, '--help']), asked)
    }
  })

  void it('prints the version', async () => {
    for (const args of [['version'], ['--version'], ['-v']]) {
      assert.match((await berth(args)).stdout, /^\d+\.\d+\.\d+\n$/)
    }
  })

  void it('ends with EX_USAGE of sysexits.h where the words mean nothing', async () => {
    for (const args of [['sreve'], ['help', 'toString'], ['--nope'], ['config', 'chekc']]) {
      const { code, stderr, stdout } = await berth(args)
      assert.deepEqual([code, stdout], [64, ''], args.join(' '))
      assert.doesNotMatch(stderr, STACK)
    }
  })

  void it('checks settings without starting anything, and ends with EX_CONFIG where they are wrong', async () => {
    assert.equal((await berth(['config', 'check'])).code, 0)
    for (const args of [['config', 'check'], ['serve'], ['health']]) {
      const { code, stderr } = await berth(args, { env: { BERTH_HTTP_PORT: 'x', BERTH_LOG_LEVEL: 'y' } })
      assert.equal(code, 78)
      assert.match(stderr, /http\.port: must be[^\n]*\n {2}log\.level: must be/)
    }
  })

  void it('says that nothing answers at the configured address', async () => {
    const { code, stderr } = await berth(['health'], { env: { BERTH_HTTP_PORT: String(await freePort()) } })
    assert.equal(code, 1)
    assert.match(stderr, /^berth: http:\/\/127\.0\.0\.1:\d+\/healthz does not answer\n$/)
  })
})

void describe('where and on what it runs', () => {
  void it('runs from any directory, also by a link', async () => {
    const link = join(work, 'berth')
    await symlink(BERTH, link)
    assert.equal((await berth(['version'], { cwd: '/', file: link })).code, 0)
  })

  /** Makes the Node of the tests say that it is an older one, as far as `bin/berth.js` asks. */
  const older = 'data:text/javascript,Object.defineProperty(process.versions,"node",{value:"20.19.0"})'

  void it('on an older Node it runs on the Node that npm has installed beside it', async () => {
    const { code, stdout } = await berth(['version'], { node: [process.execPath, '--import', older] })
    assert.equal(code, 0)
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  })

  void it('on an older Node without that one it says what is missing and how to get it', async () => {
    const bare = join(work, 'bare')
    await mkdir(join(bare, 'bin'), { recursive: true })
    await cp(BERTH, join(bare, 'bin', 'berth.js'))
    await writeFile(join(bare, 'package.json'), '{"type":"module"}')
    const file = join(bare, 'bin', 'berth.js')
    const { code, stderr } = await berth(['serve'], { file, node: [process.execPath, '--import', older] })

    assert.equal(code, 1)
    assert.match(stderr, /needs Node 24 or newer; this is Node 20\.19\.0\.\n.*npm ci --ignore-scripts=false/)
    assert.doesNotMatch(stderr, STACK)
  })
})

async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** Starts a server that cannot start; returns the one line it says. */
async function refusal(env: Record<string, string>): Promise<string> {
  const free = { BERTH_HTTP_PORT: '0', BERTH_METRICS_PORT: '0', BERTH_DATA_DIR: join(work, 'data') }
  const { code, stderr } = await berth(['serve'], { env: { ...free, ...env } })
  assert.equal(code, 1, stderr)
  assert.match(stderr, /^berth: [^\n]+\n$/)
  return stderr
}

void describe('a start that fails says why and what to do in one line', () => {
  void it('the port is in use', async () => {
    const server = await startServer()
    try {
      const database = await createDatabase()
      const env = database === undefined ? {} : { BERTH_DATABASE_URL: database.url }
      const line = await refusal({ ...env, BERTH_HTTP_PORT: new URL(server.url).port })
      await database?.drop()
      assert.match(line, /is in use: stop what listens there, or set BERTH_HTTP_PORT/)
    } finally {
      await server.stop()
    }
  })

  void it('the address is none of this machine', async () => {
    const line = await refusal({ BERTH_HTTP_HOST: '192.0.2.1', BERTH_AUTH_MODE: 'open' })
    assert.match(line, /192\.0\.2\.1\S* is no address of this machine: set BERTH_HTTP_HOST/)
  })

  void it('the data directory is a file', async () => {
    await writeFile(join(work, 'file'), '')
    assert.match(await refusal({ BERTH_DATA_DIR: join(work, 'file') }), /not a directory: set BERTH_DATA_DIR/)
  })

  void it('the data directory may not be written to', async () => {
    // Not even root may create a directory in /sys.
    assert.match(await refusal({ BERTH_DATA_DIR: '/sys/berth' }), /\/sys\/berth cannot be written to/)
  })

  void it('another process has the data directory open', async () => {
    const dataDir = join(work, 'shared')
    const first = { BERTH_HTTP_PORT: '0', BERTH_METRICS_PORT: '0', BERTH_DATA_DIR: dataDir, BERTH_DATABASE_URL: '' }
    const server = await startServer({ dataDir, env: first })
    try {
      assert.match(await refusal({ BERTH_DATA_DIR: dataDir }), /another process has .*shared open: stop it/)
    } finally {
      await server.stop()
    }
  })

  void it('Postgres cannot be reached', async () => {
    const url = `postgres://berth:s3cret@127.0.0.1:${await freePort()}/berth`
    const line = await refusal({ BERTH_DATABASE_URL: url })
    assert.match(line, /cannot be reached \(connect ECONNREFUSED .*\): check that Postgres runs/)
    assert.doesNotMatch(line, /s3cret/)
  })
})
