import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { it } from 'node:test'
import { REPOSITORY_ROOT, until } from '../support/clients.ts'

/** The process that listens, as its own log names it. */
async function listeningPid(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error('started without pipes')
  for await (const line of createInterface({ input: child.stdout })) {
    const said = /^\{.*"msg":"listening"/.test(line) ? (JSON.parse(line) as { pid: number }) : undefined
    if (said !== undefined) return said.pid
  }
  throw new Error('it ended before it listened')
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

it('the registry ends when `npm start` is told to: supervisors know only the process they started', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-npm-'))
  const settings = {
    BERTH_HTTP_PORT: '0',
    BERTH_METRICS_PORT: '0',
    BERTH_LOG_FORMAT: 'json',
    BERTH_DATA_DIR: directory,
  }
  const child = spawn('npm', ['--prefix', REPOSITORY_ROOT, 'start'], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let pid: number | undefined
  try {
    pid = await listeningPid(child)
    const registry = pid
    assert.notEqual(registry, child.pid)
    child.kill('SIGTERM')
    await until('the registry has ended', async () => !isAlive(registry))
  } finally {
    child.kill('SIGKILL')
    if (pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGKILL')
    await rm(directory, { recursive: true, force: true })
  }
})
