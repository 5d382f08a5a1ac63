import { loadConfig } from '../config.ts'
import { serve } from '../server.ts'

/** Runs the registry until SIGTERM or SIGINT; a second signal ends it at once. */
export async function serveVerb(): Promise<number> {
  const config = loadConfig(process.env, process.cwd())
  const server = await serve(config)
  if (process.stdout.isTTY) {
    const host = new URL(server.url).host
    process.stdout.write(
      `\nBerth listens on ${server.url}, data in ${config.data.dir}\n` +
        (config.database.url === undefined
          ? 'The index is embedded: it survives the death of the process; after a power cut, what the disk had of it counts.\n'
          : '') +
        `\nPush a first image:\n  docker tag IMAGE ${host}/hello:1\n  docker push ${host}/hello:1\n\n`,
    )
  }
  await stopSignal()
  process.once('SIGTERM', () => process.exit(1))
  process.once('SIGINT', () => process.exit(1))
  await server.close()
  return 0
}

async function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  process.once('SIGTERM', () => resolve())
  process.once('SIGINT', () => resolve())
  await promise
}
