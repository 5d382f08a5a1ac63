import { parseArgs } from 'node:util'
import { adminHelp, adminVerb, isAdminNoun } from './cli/admin.ts'
import { API_HELP, apiDocument } from './cli/api.ts'
import { CONFIG_HELP, configVerb } from './cli/config.ts'
import { HEALTH_HELP, healthVerb } from './cli/health.ts'
import { SERVE_HELP, serveVerb } from './cli/serve.ts'
import { describeFault } from './cli/start-fault.ts'
import { UsageError } from './cli/usage-error.ts'
import { ConfigError } from './config.ts'
import { VERSION } from './version.ts'

const HELP = `berth ${VERSION}: a private OCI image registry

  berth serve            run the registry
  berth config check     check the settings and show every fault
  berth config schema    print the JSON schema of the settings
  berth config docs      print the reference of the settings
  berth health           ask the configured address whether it answers
  berth api              print the OpenAPI document of the administration
  berth version          print the version
  berth help VERB        say more about one of them

Administration, through the running server of this data directory or of --server URL with a token in BERTH_TOKEN or
--token-file, or with --login NAME and a password; --json for programs:

${adminHelp()}
Settings come from BERTH_* variables and the YAML file BERTH_CONFIG names: docs/configuration.md
`
/** EX_CONFIG and EX_USAGE of sysexits.h. */
const EXIT_CONFIG = 78
const EXIT_USAGE = 64

interface Verb {
  readonly help: string
  /** Resolves to the exit code. */
  readonly run: (words: readonly string[]) => number | Promise<number>
}

const VERBS: Readonly<Record<string, Verb>> = {
  serve: { help: SERVE_HELP, run: serveVerb },
  config: { help: CONFIG_HELP, run: words => configVerb(words[0]) },
  health: { help: HEALTH_HELP, run: healthVerb },
  api: { help: API_HELP, run: () => print(apiDocument()) },
  version: { help: 'berth version: prints the version.\n', run: () => print(`${VERSION}\n`) },
}

async function main(args: readonly string[]): Promise<number> {
  const [noun = '', ...rest] = args
  if (isAdminNoun(noun)) return await adminVerb(noun, rest)
  const { verb = 'help', words, wantsHelp } = parse(args)
  if (verb === 'help') return print(words[0] === undefined ? HELP : helpOf(words[0]))
  const { help, run } = verbOf(verb)
  return wantsHelp ? print(help) : await run(words)
}

function helpOf(word: string): string {
  return isAdminNoun(word) ? adminHelp(word) : verbOf(word).help
}

function parse(args: readonly string[]): { verb: string | undefined; words: string[]; wantsHelp: boolean } {
  const options = { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'v' } } as const
  try {
    const { positionals, values } = parseArgs({ args: [...args], options, allowPositionals: true })
    const [verb, ...words] = positionals
    return { verb: values.version ? 'version' : verb, words, wantsHelp: values.help === true }
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function verbOf(name: string): Verb {
  const verb = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined
  if (verb === undefined) throw new UsageError(`there is no command ${name}`)
  return verb
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof ConfigError) {
    process.stderr.write('The settings cannot be used:\n')
    for (const fault of error.faults) process.stderr.write(`  ${fault.path}: ${fault.message}\n`)
    process.exitCode = EXIT_CONFIG
  } else if (error instanceof UsageError) {
    process.stderr.write(`berth: ${error.message}\n\n${error.help ?? 'berth help shows every command.\n'}`)
    process.exitCode = EXIT_USAGE
  } else {
    process.stderr.write(`berth: ${describeFault(error)}\n`)
    process.exitCode = 1
  }
}
