import { type DestinationStream, type Logger, pino } from 'pino'
import pretty from 'pino-pretty'

/** The process's log. */
export type Log = Logger

/** `auto`: for people on a terminal, JSON otherwise. */
export interface LogOptions {
  readonly level: string
  readonly format: 'auto' | 'json' | 'pretty'
}

const SECRETS = ['authorization', 'cookie', 'password', 'token', '*.authorization', '*.cookie', '*.password', '*.token']

/** Opens the log on `destination` (standard output). */
export function createLog(options: LogOptions, destination?: DestinationStream): Log {
  const forPeople = options.format === 'pretty' || (options.format === 'auto' && process.stdout.isTTY)
  const settings = { level: options.level, redact: SECRETS }
  if (forPeople && destination === undefined) return pino(settings, pretty({ sync: true, ignore: 'pid,hostname' }))
  return destination === undefined ? pino(settings) : pino(settings, destination)
}
