import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

/** CNCF Distribution as Debian packages it, with HTTP Basic logins. */
export interface Distribution {
  /** `127.0.0.1:PORT` */
  readonly host: string
  readonly username: string
  readonly password: string
  stop(): Promise<void>
}

const USERNAME = 'mirror'
const PASSWORD = 'a password of the tests'
/** bcrypt of {@link PASSWORD}, as cheap as it goes. */
const HASH = '$2b$04$hibLSMYDBZAths2JjcG6UO2MIZT.FzFQ9O6fCofqPqV0Po5y7it7C'

/** Starts one on a free port, with its data in `dir`. */
export async function startDistribution(dir: string): Promise<Distribution> {
  await mkdir(dir, { recursive: true })
  const users = join(dir, 'htpasswd')
  const config = join(dir, 'config.json')
  await writeFile(users, `${USERNAME}:${HASH}\n`)
  // YAML takes JSON.
  await writeFile(
    config,
    JSON.stringify({
      version: 0.1,
      log: { level: 'info' },
      storage: { filesystem: { rootdirectory: join(dir, 'data') } },
      http: { addr: '127.0.0.1:0' },
      auth: { htpasswd: { realm: 'tests', path: users } },
    }),
  )
  const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] })
  const heard: string[] = []
  const listening = Promise.withResolvers<string>()
  createInterface(child.stderr).on('line', line => {
    heard.push(line)
    const [, host] = /listening on (127\.0\.0\.1:\d+)/.exec(line) ?? []
    if (host !== undefined) listening.resolve(host)
  })
  child.once('error', listening.reject)
  child.once('exit', code => listening.reject(new Error(`docker-registry ended with ${code}\n${heard.join('\n')}`)))
  const host = await listening.promise
  return {
    host,
    username: USERNAME,
    password: PASSWORD,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}
