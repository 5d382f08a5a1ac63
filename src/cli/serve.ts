import { constants } from 'node:os'
import { type Config, loadConfig } from '../config.ts'

export const SERVE_HELP = `berth serve: runs the registry until SIGTERM or SIGINT.

Requests that are running then may finish within http.shutdownTimeout; a second signal ends the process at once.
`
/** A terminal's Ctrl-C reaches this process and what started it, which passes it on: that is one signal, not two. */
const SAME_SIGNAL_MS = 500

/** Runs the registry until SIGTERM or SIGINT; a second signal ends it at once. @throws ConfigError, and what serve throws. */
export async function serveVerb(): Promise<number> {
  const config = loadConfig(process.env, process.cwd())
  const stop = stopSignal()
  // Loaded here alone: the other verbs start in half the time, above all the health check that a container runs for ever.
  const { serve } = await import('../server.ts')
  const server = await serve(config)
  // Standard output is the log's.
  process.stderr.write(welcome(config, server.url))
  if (server.generatedPassword !== undefined) {
    process.stderr.write(
      `The user admin was made. Its password is shown this once and kept nowhere:\n  ${server.generatedPassword}\n\n`,
    )
  }
  await stop
  await server.close()
  return 0
}

/** What a newcomer has to know: address, data, promise, and how to push. */
export function welcome(config: Config, url: string): string {
  const { hostname, port } = new URL(url)
  const host = `${hostname === '0.0.0.0' || hostname === '[::]' ? '127.0.0.1' : hostname}:${port}`
  const index =
    config.database.url === undefined
      ? `embedded, in the same directory, for one process at a time.
           What was acknowledged is synced to the disk: it survives a crash and, on a disk that
           keeps what it confirmed, a power cut.`
      : 'the Postgres of database.url'
  return `
Berth listens on ${url}
  data     ${config.data.dir}
  index    ${index}
  logins   ${logins(config)}

Push a first image:
${config.auth.mode === 'token' ? `  docker login ${host}\n` : ''}  docker tag IMAGE ${host}/hello:1
  docker push ${host}/hello:1

`
}

function logins({ auth }: Config): string {
  if (auth.mode !== 'token') {
    return `off: whoever reaches this address may pull, push and delete.
           BERTH_AUTH_MODE=token asks everybody to log in.`
  }
  const sources = [
    ...(auth.htpasswd === undefined ? [] : [`users of ${auth.htpasswd}`]),
    ...(auth.realm === undefined ? [] : [`tokens come from ${auth.realm}`]),
  ]
  return ['on (auth.mode is token)', ...sources].join('; ')
}

/** Resolves at the first signal; the next one ends the process. */
async function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let firstAt: number | undefined
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      firstAt ??= performance.now()
      if (performance.now() - firstAt > SAME_SIGNAL_MS) process.exit(128 + constants.signals[signal])
      resolve()
    })
  }
  await promise
}
