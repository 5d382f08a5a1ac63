// versitygw over a directory: an S3 server of one process.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from './free-port.ts'
import { type S3Server, type Spawn, untilAnswers } from './s3-server.ts'

const PROGRAM = join(import.meta.dirname, '..', '.cache', 'bin', 'versitygw')
const USER = { accessKeyId: 'berth', secretAccessKey: 'berth-secret' }

/** Starts versitygw under `directory`. */
export async function startVersitygw(directory: string, spawn: Spawn): Promise<S3Server> {
  const [data, notes] = [join(directory, 'data'), join(directory, 'notes')]
  for (const path of [data, notes]) mkdirSync(path, { recursive: true })
  const address = `127.0.0.1:${await freePort()}`
  spawn(PROGRAM, ['--port', address, '--keep-alive', '--quiet', 'posix', '--sidecar', notes, data], {
    ROOT_ACCESS_KEY: USER.accessKeyId,
    ROOT_SECRET_KEY: USER.secretAccessKey,
  })
  const endpoint = `http://${address}`
  await untilAnswers(endpoint)
  return { endpoint, ...USER }
}
