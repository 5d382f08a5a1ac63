import { setTimeout as delay } from 'node:timers/promises'

/** A running S3 server and who may do everything there. */
export interface S3Server {
  readonly endpoint: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** Starts a program that runs until the end; answers whether it still does. */
export type Spawn = (
  program: string,
  args: readonly string[],
  env?: Readonly<Record<string, string>>,
) => { readonly isRunning: () => boolean }

const LIMIT_MS = 180_000
const POLL_MS = 100

/** Waits for a condition. @throws Error naming it after a minute. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + LIMIT_MS
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`It took too long until ${what}`)
    await delay(POLL_MS)
  }
}

/** Waits until a server answers anything. */
export async function untilAnswers(endpoint: string): Promise<void> {
  await until(`${endpoint} answers`, () =>
    fetch(endpoint).then(
      () => true,
      () => false,
    ),
  )
}
