// Stand-ins for official images, made of what Debian and this project's scripts install on this machine: same names, same
// users, same settings as far as they are used here. So images are built and composed without a registry on the internet.
import { chmod, chown, copyFile, cp, mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Output, REPOSITORY_ROOT, exists, makeRootfs, makeTar, run } from './clients.ts'

const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt'
const NPM = 'usr/local/lib/node_modules/npm'
const POSTGRES_UID = 999
const POSTGRES_DATA = 'var/lib/postgresql/data'
/** What postgres:17 does with the variables that docker-compose.yml sets. */
const POSTGRES_ENTRYPOINT = `#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --no-locale --encoding=UTF8 \\
    --auth-local=trust --auth-host=scram-sha-256
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl --wait --mode=fast stop
fi
exec postgres -c 'listen_addresses=*'
`

type Docker = (...args: string[]) => Promise<Output>

/** `node:24-bookworm-slim` of this Node, with this machine's npm and its settings. */
export async function importNodeImage(docker: Docker, work: string, name: string): Promise<void> {
  const dir = join(work, 'node')
  await makeRootfs(dir)
  await placeProgram(dir, process.execPath, '/usr/local/bin/node')
  await cp(join((await run('npm', ['root', '-g'])).stdout.trim(), 'npm'), join(dir, NPM), { recursive: true })
  await symlink(join('/', NPM, 'bin/npm-cli.js'), join(dir, 'usr/local/bin/npm'))
  await mkdir(join(dir, 'usr/bin'), { recursive: true })
  await symlink('/bin/busybox', join(dir, 'usr/bin/env'))
  const settings = [`NPM_CONFIG_REGISTRY=${(await run('npm', ['config', 'get', 'registry'])).stdout.trim()}`]
  if (await exists(CA_BUNDLE)) {
    await place(dir, CA_BUNDLE, CA_BUNDLE)
    settings.push(`NODE_EXTRA_CA_CERTS=${CA_BUNDLE}`)
  }
  await importImage(docker, dir, name, settings)
}

/** The official Postgres image, of the newest Postgres installed here. */
export async function importPostgresImage(docker: Docker, work: string, name: string): Promise<void> {
  const dir = join(work, 'postgres')
  await makeRootfs(dir)
  await addUser(dir, 'postgres', POSTGRES_UID)
  const [version] = (await readdir('/usr/lib/postgresql')).toSorted((a, b) => Number(b) - Number(a))
  if (version === undefined) throw new Error('Postgres is not installed; run scripts/install-ci.sh')
  const home = `/usr/lib/postgresql/${version}`
  for (const program of ['postgres', 'initdb', 'pg_ctl', 'createdb', 'pg_isready']) {
    await placeProgram(dir, `${home}/bin/${program}`, `${home}/bin/${program}`)
  }
  // Without its just-in-time compiler, which is an option of the server and larger than all the rest.
  const filter = (path: string): boolean => !/bitcode|llvmjit|pgxs/.test(path)
  await cp(`${home}/lib`, join(dir, home, 'lib'), { recursive: true, filter })
  const shared = `/usr/share/postgresql/${version}`
  await cp(shared, join(dir, shared), { recursive: true })
  await place(dir, '/usr/share/zoneinfo/Etc/UTC', '/usr/share/zoneinfo/Etc/UTC')
  await writeFile(join(dir, 'entrypoint.sh'), POSTGRES_ENTRYPOINT, { mode: 0o755 })
  for (const [path, mode] of [
    [POSTGRES_DATA, 0o1777],
    ['var/run/postgresql', 0o3777],
  ] as const) {
    await mkdir(join(dir, path), { recursive: true })
    await chown(join(dir, path), POSTGRES_UID, POSTGRES_UID)
    await chmod(join(dir, path), mode)
  }
  await importImage(docker, dir, name, [`PGDATA=/${POSTGRES_DATA}`], {
    path: `${home}/bin:/bin`,
    entrypoint: ['/entrypoint.sh'],
  })
}

/** The official HAProxy image, of Debian's HAProxy. */
export async function importHaproxyImage(docker: Docker, work: string, name: string): Promise<void> {
  const dir = join(work, 'haproxy')
  await makeRootfs(dir)
  await addUser(dir, 'haproxy', 99)
  await placeProgram(dir, '/usr/sbin/haproxy', '/usr/local/sbin/haproxy')
  const entrypoint = ['haproxy', '-W', '-db', '-f', '/usr/local/etc/haproxy/haproxy.cfg']
  await importImage(docker, dir, name, [], { path: '/usr/local/sbin:/bin', entrypoint })
}

/** versitygw's own image, of the versitygw that scripts/install-ci.sh builds. */
export async function importVersitygwImage(docker: Docker, work: string, name: string): Promise<void> {
  const dir = join(work, 'versitygw')
  await makeRootfs(dir)
  await place(dir, join(REPOSITORY_ROOT, '.cache', 'bin', 'versitygw'), '/usr/local/bin/versitygw')
  await importImage(docker, dir, name, [])
}

async function importImage(
  docker: Docker,
  dir: string,
  name: string,
  settings: readonly string[],
  { path = '/usr/local/bin:/usr/bin:/bin', entrypoint }: { path?: string; entrypoint?: readonly string[] } = {},
): Promise<void> {
  const lines = [`PATH=${path}`, ...settings].map(setting => `ENV ${setting}`)
  if (entrypoint !== undefined) lines.push(`ENTRYPOINT ${JSON.stringify(entrypoint)}`)
  await makeTar(dir, `${dir}.tar`)
  await docker('import', ...lines.flatMap(line => ['--change', line]), `${dir}.tar`, name)
}

/** Copies a program and every library it is linked with. */
async function placeProgram(dir: string, from: string, to: string): Promise<void> {
  await place(dir, from, to)
  const { stdout } = await run('ldd', [from])
  for (const [, library] of stdout.matchAll(/(?:=> )?(\/\S+) \(0x/g)) {
    await place(dir, String(library), String(library))
  }
}

async function place(dir: string, from: string, to: string): Promise<void> {
  await mkdir(dirname(join(dir, to)), { recursive: true })
  await copyFile(from, join(dir, to))
  await chmod(join(dir, to), 0o755)
}

async function addUser(dir: string, name: string, id: number): Promise<void> {
  const [users, groups] = [join(dir, 'etc', 'passwd'), join(dir, 'etc', 'group')]
  await writeFile(users, `${await readFile(users, 'utf8')}${name}:x:${id}:${id}::/:/bin/sh\n`)
  await writeFile(groups, `${await readFile(groups, 'utf8')}${name}:x:${id}:\n`)
}
