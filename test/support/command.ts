import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

export const BERTH = join(import.meta.dirname, '..', '..', 'bin', 'berth.js')
const LIMIT_MS = 180_000

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** What stands on its standard input; it is closed without it. */
  readonly input?: string
  /** What runs it; the Node of the tests unless given. */
  readonly node?: readonly string[]
  /** The file that is run: `bin/berth.js` unless given. */
  readonly file?: string
}

/** Runs `berth ARGS` to its end, with none of the caller's own settings. */
export async function berth(args: readonly string[], options: CommandOptions = {}): Promise<Ended> {
  const [node = process.execPath, ...flags] = options.node ?? []
  const inherited = Object.entries(process.env).filter(([name]) => !/^(?:BERTH_|NODE_)/.test(name))
  const child = spawn(node, [...flags, options.file ?? BERTH, ...args], {
    cwd: options.cwd ?? import.meta.dirname,
    env: { ...Object.fromEntries(inherited), ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  })
  // One that ends without reading its input has not failed.
  child.stdin.on('error', () => undefined).end(options.input)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  await once(child, 'close')
  return { code: child.exitCode, stdout, stderr }
}
