import { parseArgs } from 'node:util'
import { configVerb } from './cli/config.ts'
import { healthVerb } from './cli/health.ts'
import { serveVerb } from './cli/serve.ts'
import { ConfigError } from './config.ts'
import { VERSION } from './version.ts'

const HELP = `berth ${VERSION}: a private OCI image registry

  berth serve            run the registry
  berth config check     check the settings and show every fault
  berth config schema    print the JSON schema of the settings
  berth config docs      print the table of settings
  berth health           ask the configured address whether it answers
  berth version          print the version

Settings come from BERTH_* variables and the YAML file BERTH_CONFIG names: docs/configuration.md
`
/** EX_CONFIG and EX_USAGE of sysexits.h. */
const EXIT_CONFIG = 78
const EXIT_USAGE = 64

async function main(): Promise<number> {
  const { positionals } = parseArgs({ allowPositionals: true, strict: true, options: {} })
  const [verb = 'help', ...rest] = positionals
  switch (verb) {
    case 'serve':
      return await serveVerb()
    case 'config':
      return configVerb(rest[0])
    case 'health':
      return await healthVerb()
    case 'version':
      process.stdout.write(`${VERSION}\n`)
      return 0
    case 'help':
      process.stdout.write(HELP)
      return 0
    default:
      process.stderr.write(`there is no command ${verb}\n\n${HELP}`)
      return EXIT_USAGE
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  if (error instanceof ConfigError) {
    process.stderr.write('The settings cannot be used:\n')
    for (const fault of error.faults) process.stderr.write(`  ${fault.path}: ${fault.message}\n`)
    process.exitCode = EXIT_CONFIG
  } else {
    process.stderr.write(`berth: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
