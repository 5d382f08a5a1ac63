import { z } from 'zod'
import { loadConfig } from '../config.ts'
import { SETTINGS, variableOf } from '../settings.ts'

export const CONFIG_HELP = `berth config check | schema | docs

  check     reads the settings and shows every fault; ends with 0 when there is none, else with 78
  schema    prints the JSON schema of the YAML file
  docs      prints the reference of the settings in Markdown
`

/** `berth config check | schema | docs`. @throws ConfigError from `check`. */
export function configVerb(verb: string | undefined): number {
  switch (verb) {
    case 'check':
      loadConfig(process.env, process.cwd())
      process.stdout.write('The settings are valid.\n')
      return 0
    case 'schema':
      process.stdout.write(settingsSchema())
      return 0
    case 'docs':
      process.stdout.write(settingsTable())
      return 0
    default:
      process.stderr.write(CONFIG_HELP)
      return 64
  }
}

/** The JSON schema of the YAML file. */
export function settingsSchema(): string {
  const root: Section = { type: 'object', additionalProperties: false, properties: {} }
  for (const [path, setting] of Object.entries(SETTINGS)) {
    const sections = path.split('.')
    const key = sections.pop() ?? ''
    const at = sections.reduce((outer, name) => (outer.properties[name] ??= section()) as Section, root)
    const { $schema: _, ...schema } = z.toJSONSchema(setting.schema, { io: 'input' })
    const initial = setting.initial === undefined ? {} : { default: setting.initial }
    at.properties[key] = { ...schema, description: setting.about, ...initial }
  }
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Berth settings',
    ...root,
  }
  return `${JSON.stringify(schema, null, 2)}\n`
}

interface Section {
  readonly type: string | readonly string[]
  readonly additionalProperties: false
  readonly properties: Record<string, unknown>
}

/** A section whose lines are all commented out is null. */
function section(): Section {
  return { type: ['object', 'null'], additionalProperties: false, properties: {} }
}

/** The reference of settings, in Markdown. */
export function settingsTable(): string {
  const rows = Object.entries(SETTINGS).map(([path, { initial, about, ...rest }]) => {
    const file = 'secret' in rest ? ` (or \`${variableOf(path)}_FILE\`)` : ''
    return `| \`${path}\` | \`${variableOf(path)}\`${file} | ${initial === undefined ? 'none' : `\`${initial}\``} | ${about} |`
  })
  return [
    '# Settings',
    '',
    'Each can stand in the YAML file that `BERTH_CONFIG` names (sections as nested keys) or in the environment, which wins.',
    'A variable that is empty counts as not set. `NAME_FILE` names a file that holds the value, for secrets.',
    'Durations are like `500ms`, `30s`, `24h`, `7d`, sizes like `64MiB`. This page is printed by `berth config docs`;',
    'the schema of the file is [config.schema.json](config.schema.json). `berth config check` shows every fault at once.',
    '',
    '| setting | environment | default | meaning |',
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n')
}
