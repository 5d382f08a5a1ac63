import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const MAX_LINES = 400
const EVERYTHING = ['*']

/** Which rooms a room may import. */
const LAW: Readonly<Record<string, readonly string[]>> = {
  oci: [],
  storage: ['oci'],
  metadata: ['oci'],
  auth: ['oci'],
  access: ['oci', 'auth', 'jobs', 'metadata', 'public-address.ts', 'retention'],
  retention: ['oci', 'jobs', 'metadata', 'registry'],
  registry: ['oci', 'metadata', 'storage'],
  mirror: ['oci', 'registry', 'public-address.ts'],
  sync: ['oci', 'metadata', 'registry', 'mirror', 'jobs'],
  gc: ['oci', 'metadata', 'storage'],
  moving: ['oci', 'metadata', 'storage'],
  jobs: ['oci', 'metadata', 'storage'],
  middleware: ['oci', 'auth'],
  routes: ['oci', 'registry', 'auth', 'access', 'middleware'],
  'app.ts': ['oci', 'auth', 'access', 'middleware', 'routes', 'registry'],
  metrics: ['oci', 'middleware', 'registry', 'metadata', 'storage'],
  'http-server.ts': ['middleware', 'tls.ts'],
  'tls.ts': ['file-watch.ts'],
  'file-watch.ts': [],
  'log.ts': [],
  'local-socket.ts': [],
  'public-address.ts': [],
  'version.ts': [],
  'settings.ts': [
    'access-settings.ts',
    'setting-values.ts',
    'mirror-settings.ts',
    'storage-settings.ts',
    'sync-settings.ts',
  ],
  'storage-settings.ts': ['setting-values.ts'],
  'mirror-settings.ts': ['known-upstreams.ts', 'setting-values.ts', 'oci'],
  'access-settings.ts': ['setting-values.ts'],
  'config-checks.ts': ['config-sources.ts', 'settings.ts'],
  'sync-settings.ts': ['jobs', 'oci', 'setting-values.ts'],
  'sync-config.ts': ['config-sources.ts', 'mirror-config.ts', 'sync-settings.ts'],
  'syncing.ts': EVERYTHING,
  'known-upstreams.ts': [],
  'mirror-config.ts': ['config-sources.ts', 'known-upstreams.ts', 'mirror-settings.ts'],
  'mirroring.ts': EVERYTHING,
  'mirror-fleet.ts': EVERYTHING,
  'mirror-jobs.ts': EVERYTHING,
  'setting-values.ts': [],
  'nearest.ts': [],
  'config.ts': ['config-checks.ts', 'config-sources.ts', 'mirror-config.ts', 'settings.ts', 'sync-config.ts'],
  'config-sources.ts': ['nearest.ts', 'settings.ts'],
  'server.ts': EVERYTHING,
  'access-control.ts': EVERYTHING,
  'identity-files.ts': EVERYTHING,
  'content-storage.ts': EVERYTHING,
  'upkeep.ts': EVERYTHING,
  'usage-jobs.ts': EVERYTHING,
  'cli.ts': EVERYTHING,
  cli: EVERYTHING,
}
const KOA_ROOMS = new Set(['middleware', 'routes', 'app.ts'])

interface Import {
  readonly from: string
  readonly to: string
}

const files = globSync('src/**/*.ts', { cwd: ROOT }).map(path => normalize(path))
const imports: Import[] = files.flatMap(from =>
  [
    ...readFileSync(join(ROOT, from), 'utf8').matchAll(
      /^(?:import|export)[^'"]*?from ['"]([^'"]+)['"]|^import ['"]([^'"]+)['"]/gm,
    ),
  ].map(match => ({ from, to: match[1] ?? match[2] ?? '' })),
)
const inner = imports
  .filter(({ to }) => to.startsWith('.'))
  .map(({ from, to }) => ({ from, to: normalize(join(dirname(from), to)) }))

function roomOf(path: string): string {
  return path.split('/')[1] ?? ''
}

void test('the law is held against the whole source', () => {
  assert.ok(files.length > 30, `saw only ${files.length} files`)
  assert.ok(inner.length > 60, `saw only ${inner.length} imports`)
})

void test('every file lies in a room', () => {
  assert.deepEqual(
    files.filter(file => LAW[roomOf(file)] === undefined),
    [],
  )
})

void test('rooms import only the rooms they may', () => {
  const broken = inner.filter(({ from, to }) => {
    const allowed = LAW[roomOf(from)] ?? []
    const here = roomOf(from) === roomOf(to)
    return to.startsWith('src/') && !here && allowed !== EVERYTHING && !allowed.includes(roomOf(to))
  })
  assert.deepEqual(broken, [])
})

void test('only the HTTP rooms know Koa', () => {
  const broken = imports.filter(({ from, to }) => /^(?:koa|@koa\/)/.test(to) && !KOA_ROOMS.has(roomOf(from)))
  assert.deepEqual(broken, [])
})

void test('only what opens an index knows its driver', () => {
  const broken = imports.filter(
    ({ from, to }) =>
      /^(?:pg$|@electric-sql\/)/.test(to) && !/^src\/metadata\/(?:embedded[a-z-]*|postgres)\.ts$/.test(from),
  )
  assert.deepEqual(broken, [])
})

void test('no file is longer than it can be read, and there are no barrels', () => {
  const long = files.filter(file => readFileSync(join(ROOT, file), 'utf8').split('\n').length > MAX_LINES)
  assert.deepEqual(long, [])
  assert.deepEqual(
    files.filter(file => file.endsWith('/index.ts')),
    [],
  )
})

void test('imports make no circle', () => {
  const targets = Map.groupBy(inner, ({ from }) => from)
  const done = new Set<string>()
  const visit = (file: string, way: readonly string[]): void => {
    assert.ok(!way.includes(file), [...way, file].join(' → '))
    if (done.has(file)) return
    for (const { to } of targets.get(file) ?? []) visit(to, [...way, file])
    done.add(file)
  }
  for (const file of files) visit(file, [])
})

void test('no test is skipped, alone or left for later', () => {
  const tests = globSync('test/**/*.ts', { cwd: ROOT })
  assert.ok(tests.length > 5)
  const broken = tests.filter(file =>
    /\.(?:skip|only|todo)\(|\b(?:skip|only|todo): /.test(readFileSync(join(ROOT, file), 'utf8')),
  )
  assert.deepEqual(broken, [])
})
