import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ApiRefusal, openApiClient } from './api-client.ts'
import { closeInput, readSecret } from './ask.ts'
import { OPTIONS, type Options, type Verbs, usageFault } from './command.ts'
import { auditVerbs, explainVerbs, grantVerbs, keyVerbs } from './commands/access.ts'
import { groupVerbs, userVerbs } from './commands/accounts.ts'
import { manifestVerbs, repositoryVerbs, tagRuleVerbs, tagVerbs, undeleteVerbs } from './commands/content.ts'
import { robotVerbs, tokenVerbs, trustVerbs } from './commands/machines.ts'
import { mirrorVerbs } from './commands/mirrors.ts'
import { pullsVerbs, retentionVerbs } from './commands/retention.ts'
import { storageVerbs } from './commands/storage.ts'
import { syncVerbs } from './commands/sync.ts'
import { gcVerbs, verifyVerbs } from './commands/upkeep.ts'
import { quotaVerbs, usageVerbs } from './commands/usage.ts'
import { table } from './output.ts'
import { UsageError } from './usage-error.ts'

/** Every noun of administration with its verbs; that of one that has none is empty. */
const COMMANDS: Readonly<Record<string, Verbs>> = {
  user: userVerbs,
  group: groupVerbs,
  robot: robotVerbs,
  token: tokenVerbs,
  grant: grantVerbs,
  trust: trustVerbs,
  repository: repositoryVerbs,
  manifest: manifestVerbs,
  tag: tagVerbs,
  undelete: undeleteVerbs,
  'tag-rule': tagRuleVerbs,
  key: keyVerbs,
  audit: auditVerbs,
  explain: explainVerbs,
  storage: storageVerbs,
  retention: retentionVerbs,
  pulls: pullsVerbs,
  sync: syncVerbs,
  gc: gcVerbs,
  verify: verifyVerbs,
  usage: usageVerbs,
  quota: quotaVerbs,
  mirror: mirrorVerbs,
}

/** The commands of administration, a line each. */
export function adminHelp(noun?: string): string {
  const lines = Object.entries(COMMANDS)
    .filter(([name]) => noun === undefined || name === noun)
    .flatMap(([name, verbs]) =>
      Object.entries(verbs).map(([verb, { usage, about }]) => {
        const words = ['berth', name, verb, usage].filter(word => word !== '').join(' ')
        return `  ${words}\n      ${about}\n`
      }),
    )
  return lines.join('')
}

/** Whether `noun` is a command of administration. */
export function isAdminNoun(noun: string): boolean {
  return Object.hasOwn(COMMANDS, noun)
}

/** Runs `berth NOUN VERB …`. @returns the exit code. @throws UsageError, ConfigError. */
export async function adminVerb(noun: string, rest: readonly string[]): Promise<number> {
  const verbs = COMMANDS[noun] ?? {}
  const { values, positionals, given } = parse(rest, adminHelp(noun))
  const verb = '' in verbs ? '' : (positionals.shift() ?? (noun === 'audit' ? 'list' : 'help'))
  if (values.help || verb === 'help') {
    process.stdout.write(adminHelp(noun))
    return 0
  }
  const command = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined
  if (command === undefined) throw new UsageError(`there is no command ${noun} ${verb}`, adminHelp(noun))
  const fault = usageFault(command, positionals, given)
  if (fault !== undefined) throw new UsageError(`${noun} ${verb}`.trim() + `: ${fault}`, adminHelp(noun))
  try {
    const api = await openApiClient({ server: values.server, authorization: await authorizationOf(values) })
    const result = await command.run(api, positionals, values)
    if (values.json) process.stdout.write(`${JSON.stringify('rows' in result ? result.rows : result.json, null, 2)}\n`)
    else process.stdout.write('rows' in result ? table(result.columns, result.rows) : result.text)
    return 0
  } catch (error) {
    if (!(error instanceof ApiRefusal)) throw error
    process.stderr.write(`berth ${noun}: ${error.message}\n`)
    return 1
  } finally {
    closeInput()
  }
}

interface Parsed {
  readonly values: Options
  readonly positionals: string[]
  /** The names of the options that were given. */
  readonly given: readonly string[]
}

function parse(rest: readonly string[], help: string): Parsed {
  try {
    const parsed = parseArgs({ args: [...rest], options: OPTIONS, allowPositionals: true, tokens: true })
    const given = parsed.tokens.flatMap(token => (token.kind === 'option' ? [token.name] : []))
    return { values: parsed.values, positionals: parsed.positionals, given }
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), help)
  }
}

/** What a server elsewhere is shown: the password of `--login`, or a token. @throws UsageError */
async function authorizationOf(values: Options): Promise<string | undefined> {
  const { server, login, 'token-file': file } = values
  if (server === undefined) {
    if (login !== undefined || file !== undefined) {
      throw new UsageError(`--${login === undefined ? 'token-file' : 'login'} goes with --server`, '')
    }
    return undefined
  }
  if (login !== undefined) {
    const password = await readSecret(`password of ${login}`)
    return `Basic ${Buffer.from(`${login}:${password}`).toString('base64')}`
  }
  const token = file === undefined ? process.env['BERTH_TOKEN'] : readTokenFile(file)
  return token === undefined ? undefined : `Bearer ${token}`
}

function readTokenFile(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw new UsageError(`--token-file: ${error instanceof Error ? error.message : String(error)}`, '')
  }
}
