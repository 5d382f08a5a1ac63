import { setTimeout as delay } from 'node:timers/promises'
import { type ApiClient, ApiRefusal, type Row } from '../api-client.ts'
import { done, type Verbs, need } from '../command.ts'
import { UsageError } from '../usage-error.ts'

const LOOK_MS = 1_000
const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }

/** `berth storage …` */
export const storageVerbs: Verbs = {
  list: {
    usage: '',
    about: 'stores, what lies in them, and whether this registry may delete there',
    run: async api => ({
      rows: await api.all('/storage'),
      columns: ['name', 'takesNewContent', 'configured', 'owner', 'blobs', 'bytes', 'uploads', 'trash'],
    }),
  },
  copy: {
    usage: '--to STORE [--at-once 4] [--rate 50MiB] [--dry-run] [--detach]',
    about:
      'move all content to filesystem or s3 while the registry runs, and wait for it; --rate is bytes a second,\n      --dry-run only says how much, --detach does not wait',
    async run(api, _args, options) {
      const to = need(options.to, '--to')
      const plan = (await api.call('GET', `/storage/copy/plan?${new URLSearchParams({ to }).toString()}`)) as Row
      if (options['dry-run']) {
        return done(`would move ${String(plan['blobs'])} blobs, ${size(plan['bytes'])}, to ${to}`, plan)
      }
      const started = (await api.call('POST', '/storage/copy', {
        to,
        ...(options['at-once'] === undefined ? {} : { atOnce: Number(options['at-once']) }),
        ...(options.rate === undefined ? {} : { bytesPerSecond: bytes(options.rate) }),
      })) as Row
      if (options.detach) return done(`moving to ${to}: see berth storage progress`, started)
      const ended = await follow(api)
      if (ended['state'] !== 'done') throw new ApiRefusal(sentence(ended))
      return done(sentence(ended), ended)
    },
  },
  progress: {
    usage: '',
    about: 'how far the move is that was asked for last',
    async run(api) {
      const copy = (await api.call('GET', '/storage/copy')) as Row
      return done(sentence(copy), copy)
    },
  },
  stop: {
    usage: '',
    about: 'end the move that is under way; what was moved stays moved',
    async run(api) {
      await api.call('DELETE', '/storage/copy')
      return done('stopped')
    },
  },
  adopt: {
    usage: '',
    about: 'make the stores this registry’s, so that it deletes in them: never on a copy of another registry',
    async run(api) {
      await api.call('POST', '/storage/adoption')
      return done('the stores are this registry’s')
    },
  },
}

/** Shows progress on standard error until the move ends; it goes on where nobody looks. */
async function follow(api: ApiClient): Promise<Row> {
  let shown = ''
  for (;;) {
    const copy = (await api.call('GET', '/storage/copy')) as Row
    if (copy['state'] !== 'running') return copy
    const line = sentence(copy)
    if (line !== shown) process.stderr.write(`${line}\n`)
    shown = line
    await delay(LOOK_MS)
  }
}

function sentence(copy: Row): string {
  const count = (name: string): string => String(copy[name])
  const failed = copy['failedBlobs'] === 0 ? '' : `, ${count('failedBlobs')} could not be copied`
  const why = copy['lastFailure'] === null ? '' : ` (last: ${count('lastFailure')})`
  return (
    `${count('state')}: ${count('copiedBlobs')} of ${count('foundBlobs')} blobs are in ${count('to')}, ` +
    `${size(copy['copiedBytes'])} of ${size(copy['foundBytes'])}; left: ${count('leftBlobs')}, ${size(copy['leftBytes'])}${failed}${why}`
  )
}

/** A number of bytes for people. */
function size(value: unknown): string {
  const amount = Number(value)
  const unit = Object.keys(UNITS).findLast(name => amount >= (UNITS[name] ?? 1)) ?? 'B'
  const scaled = amount / (UNITS[unit] ?? 1)
  return `${unit === 'B' ? scaled : scaled.toFixed(1)} ${unit}`
}

/** Bytes in a size such as `50MiB`. @throws UsageError */
function bytes(text: string): number {
  const match = /^(\d+) ?(B|KiB|MiB|GiB)?$/.exec(text)
  if (match === null) throw new UsageError(`${text}: write a size such as 50MiB`)
  return Number(match[1]) * (UNITS[match[2] ?? 'B'] ?? 1)
}
