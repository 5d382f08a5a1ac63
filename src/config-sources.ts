import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parse as parseYaml } from 'yaml'
import { nearestOf } from './nearest.ts'
import { SETTINGS, type SettingPath, variableOf } from './settings.ts'

/** One thing that is wrong: where, and what would be valid. */
export interface ConfigFault {
  readonly path: string
  readonly message: string
}

/** Variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>

/** What Kubernetes puts into every container beside a service that is called `berth`. */
const SERVICE_LINK = /^BERTH_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP)(?:_(?:PROTO|PORT|ADDR))?)$/

/** Every setting. */
export const PATHS = Object.keys(SETTINGS) as SettingPath[]

/** What the YAML file that `BERTH_CONFIG` names sets, by setting; adds what is wrong with it to `faults`. */
export function readFile(env: Environment, cwd: string, faults: ConfigFault[]): Map<string, unknown> {
  const file = env['BERTH_CONFIG']
  const found = new Map<string, unknown>()
  if (file === undefined || file === '') return found
  try {
    const content: unknown = parseYaml(readFileSync(resolve(cwd, file), 'utf8'))
    if (isSection(content)) flatten(content, '', found)
    else if (content !== null) faults.push({ path: 'BERTH_CONFIG', message: `${file} must hold sections of settings` })
  } catch (error) {
    faults.push({ path: 'BERTH_CONFIG', message: `${file} cannot be read: ${firstLine(error)}` })
  }
  for (const path of found.keys()) {
    if (!(path in SETTINGS)) faults.push({ path, message: unknownSetting(path, PATHS) })
  }
  return found
}

function isSection(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A setting or section without a value, as when all below it is commented out, is not set. */
function flatten(section: object, prefix: string, into: Map<string, unknown>): void {
  for (const [key, value] of Object.entries(section)) {
    const path = `${prefix}${key}`
    if (isSection(value) && !(path in SETTINGS)) flatten(value, `${path}.`, into)
    else if (value !== null || !isKnown(path)) into.set(path, value)
  }
}

function isKnown(path: string): boolean {
  return PATHS.some(known => known === path || known.startsWith(`${path}.`))
}

/**
 * What variables set, by setting; adds what is wrong with them to `faults`. One that is empty counts as not set: compose
 * files and charts pass on what they were not given.
 */
export function readEnvironment(env: Environment, faults: ConfigFault[]): Map<string, unknown> {
  const found = new Map<string, unknown>()
  // BERTH_TOKEN is the command's own: who calls another server's API.
  const known = new Set(['BERTH_CONFIG', 'BERTH_TOKEN'])
  for (const path of PATHS) {
    const name = variableOf(path)
    known.add(name)
    if (env[name]) found.set(path, env[name])
    if (!('secret' in SETTINGS[path])) continue
    known.add(`${name}_FILE`)
    const file = env[`${name}_FILE`]
    if (!file) continue
    if (env[name]) faults.push({ path, message: `set ${name} or ${name}_FILE, not both` })
    try {
      found.set(path, readFileSync(file, 'utf8').trim())
    } catch (error) {
      faults.push({ path, message: `${name}_FILE cannot be read: ${firstLine(error)}` })
    }
  }
  for (const [name, value] of Object.entries(env)) {
    const isOurs = name.startsWith('BERTH_') && !name.startsWith('BERTH_TEST_')
    if (!isOurs || !value || known.has(name) || isServiceLink(name, value)) continue
    faults.push({ path: name, message: unknownSetting(name, [...known]) })
  }
  return found
}

function isServiceLink(name: string, value: string): boolean {
  return SERVICE_LINK.test(name) || (name === 'BERTH_PORT' && /^(?:tcp|udp):/.test(value))
}

function unknownSetting(name: string, known: readonly string[]): string {
  const nearest = nearestOf(name, known)
  return nearest === undefined
    ? 'there is no such setting: docs/configuration.md has all of them'
    : `there is no such setting; is ${nearest} meant?`
}

/** The first line of what an error says. */
export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? ''
}
