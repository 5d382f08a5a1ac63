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
  const answers = (input ??= openInput(isTerminal)).lines
  const ask = async (what: string): Promise<string> => {
    if (isTerminal) process.stderr.write(`${what}: `)
    const answer = await answers.next()
    if (isTerminal) process.stderr.write('\n')
    if (answer.done === true) throw new UsageError(`${what}: nothing was given on standard input`, '')
    return answer.value
  }
  const secrets: string[] = []
  for (const { what, isNew = false } of questions) {
    const secret = await ask(what)
    if (isNew && isTerminal && (await ask(`${what}, again`)) !== secret) {
      throw new UsageError(`${what}: that was not the same twice`, '')
    }
    secrets.push(secret)
  }
  return secrets
}

/** Standard input is read by one reader: a second one would miss the lines that the first has read ahead. */
let input: { readonly lines: AsyncIterator<string>; close(): void } | undefined

function openInput(isTerminal: boolean): NonNullable<typeof input> {
  // Readline echoes what is typed to its output.
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const reader = createInterface({ input: process.stdin, output: silent, terminal: isTerminal })
  return { lines: reader[Symbol.asyncIterator](), close: () => reader.close() }
}

/** Lets go of standard input, so that the process can end. */
export function closeInput(): void {
  input?.close()
  input = undefined
}

/** One secret: see {@link readSecrets}. */
export async function readSecret(what: string, isNew = false): Promise<string> {
  const [secret = ''] = await readSecrets([{ what, isNew }])
  return secret
}
