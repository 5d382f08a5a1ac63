import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageError } from './usage-error.ts'

/**
 * A secret from standard input: on a terminal asked for without showing it, otherwise the first line. Secrets never
 * stand in arguments, where every process of the machine can read them.
 */
export async function readSecret(what: string): Promise<string> {
  const isTerminal = process.stdin.isTTY
  if (isTerminal) process.stderr.write(`${what}: `)
  // Readline echoes what is typed to its output.
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: silent, terminal: isTerminal })
  try {
    for await (const line of lines) return line
    throw new UsageError(`${what}: nothing was given on standard input`)
  } finally {
    lines.close()
    if (isTerminal) process.stderr.write('\n')
  }
}
