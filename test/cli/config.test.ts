import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, it } from 'node:test'
import { parse, stringify } from 'yaml'
import { z } from 'zod'
import { settingsSchema, settingsTable } from '../../src/cli/config.ts'
import { loadConfig } from '../../src/config.ts'
import { SETTINGS } from '../../src/settings.ts'

const DOCS = join(import.meta.dirname, '..', '..', 'docs')
const work = mkdtempSync(join(tmpdir(), 'berth-test-schema-'))
after(() => rmSync(work, { recursive: true }))

void it('the published reference is the one the settings give', () => {
  assert.equal(readFileSync(join(DOCS, 'configuration.md'), 'utf8'), settingsTable())
})

void it('the published schema is the one the settings give', () => {
  assert.equal(readFileSync(join(DOCS, 'config.schema.json'), 'utf8'), settingsSchema())
})

const schema = z.fromJSONSchema(JSON.parse(settingsSchema()) as Parameters<typeof z.fromJSONSchema>[0])
type Section = { [key: string]: Section | string | number | boolean }
const defaults: Section = {}
for (const [path, { initial }] of Object.entries(SETTINGS)) {
  const sections = path.split('.')
  const key = sections.pop() ?? ''
  const section = sections.reduce((outer, name) => (outer[name] ??= {}) as Section, defaults)
  if (initial !== undefined) section[key] = initial
}
const everything = stringify(defaults)

const valid: Record<string, string> = {
  'every default': everything,
  'numbers as text': 'http: { port: "8080" }\nstorage: { uploadMemory: 8MiB }',
  'a size as a number': 'storage: { uploadMemory: 8388608 }',
  'truth as text': 'metrics: { enabled: "false" }',
  'a database': 'database: { url: "postgres://u:p@h/d", poolSize: 20 }',
  'a section in a section': 'storage: { driver: s3, s3: { bucket: images, pathStyle: true } }',
  'an empty section': 'http:\nlog: { level: debug }',
}
for (const [what, text] of Object.entries(valid)) {
  void it(`the schema accepts what the parser accepts: ${what}`, () => {
    const file = join(work, 'valid.yaml')
    writeFileSync(file, text)
    loadConfig({ BERTH_CONFIG: file }, work)
    const result = schema.safeParse(parse(text))
    assert.ok(result.success, result.error?.message)
  })
}

const invalid: Record<string, string> = {
  'an unknown setting': 'http: { prot: 1 }',
  'an unknown section': 'htpp: { port: 1 }',
  'a port beyond the last': 'http: { port: 65536 }',
  'a duration without a unit': 'http: { idleTimeout: 30 }',
  'a level that is none': 'log: { level: loud }',
  'a list': 'http: { host: [a] }',
}
for (const [what, text] of Object.entries(invalid)) {
  void it(`the schema refuses what the parser refuses: ${what}`, () => {
    const file = join(work, 'invalid.yaml')
    writeFileSync(file, text)
    assert.throws(() => loadConfig({ BERTH_CONFIG: file }, work), { name: 'ConfigError' })
    assert.equal(schema.safeParse(parse(text)).success, false)
  })
}
