import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageError } from './usage-error.ts'

/** A secret to ask for: what it is, and whether it is new, so that a slip of the hand must not choose it. */
export interface Question {
  readonly what: string
  readonly isNew?: boolean
}

/**
 * Secrets from standard input: on a terminal asked for without showing them, new ones twice; otherwise a line each.
 * Secrets never stand in arguments, where every process of the machine can read them.
 * @throws UsageError where there are too few lines, or a new one was not said the same way twice.
 */
export async function readSecrets(questions: readonly Question[]): Promise<readonly string[]> {
  const isTerminal = process.stdin.isTTY
  // Readline echoes what is typed to its output.
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: silent, terminal: isTerminal })
  const answers = lines[Symbol.asyncIterator]()
  const ask = async (what: string): Promise<string> => {
    if (isTerminal) process.stderr.write(`${what}: `)
    const answer = await answers.next()
    if (isTerminal) process.stderr.write('\n')
    if (answer.done === true) throw new UsageError(`${what}: nothing was given on standard input`)
    return answer.value
  }
  try {
    const secrets: string[] = []
    for (const { what, isNew = false } of questions) {
      const secret = await ask(what)
      if (isNew && isTerminal && (await ask(`${what}, again`)) !== secret) {
        throw new UsageError(`${what}: that was not the same twice`)
      }
      secrets.push(secret)
    }
    return secrets
  } finally {
    lines.close()
  }
}

/** One secret: see {@link readSecrets}. */
export async function readSecret(what: string, isNew = false): Promise<string> {
  const [secret = ''] = await readSecrets([{ what, isNew }])
  return secret
}
