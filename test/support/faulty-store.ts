import { type BlobStore, StoreUnavailable } from '../../src/storage/blob-store.ts'

/** A step of a store that can be told to fail. `append` fails before its first byte, `sync` after its last. */
export type Step = 'append' | 'sync' | 'fence' | 'finish' | 'finished' | 'send' | 'read'

/** A store that fails on command and otherwise does what the real one does. */
export interface FaultyStore extends BlobStore {
  /** What fails from now on, until it is changed. */
  failing: Step | undefined
  /** Times that a step failed. */
  readonly failures: number
}

/** Puts failures in front of a real store. `finished` fails after the store has done the work, as a lost answer does. */
export function faultyStore(real: BlobStore): FaultyStore {
  let failing: Step | undefined
  let failures = 0
  const fail = (step: Step): void => {
    if (failing !== step) return
    failures += 1
    throw new StoreUnavailable(`told to fail at ${step}`, {
      cause: Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC', syscall: 'write' }),
    })
  }
  return {
    get failing() {
      return failing
    },
    set failing(step) {
      failing = step
    },
    get failures() {
      return failures
    },
    name: real.name,
    begin: hint => real.begin(hint),
    async append(state, body, options) {
      fail('append')
      return await real.append(state, body, {
        ...options,
        onDurable: async durable => {
          fail('sync')
          await options.onDurable(durable)
        },
      })
    },
    async fence(state) {
      fail('fence')
      return await real.fence(state)
    },
    async finish(state) {
      fail('finish')
      const key = await real.finish(state)
      fail('finished')
      return key
    },
    abort: state => real.abort(state),
    async send(key, range, to, signal) {
      fail('send')
      await real.send(key, range, to, signal)
    },
    async *read(key, signal) {
      fail('read')
      yield* real.read(key, signal)
    },
    stat: key => real.stat(key),
    delete: keys => real.delete(keys),
    list: () => real.list(),
    readMarker: () => real.readMarker(),
    writeMarker: text => real.writeMarker(text),
    check: () => real.check(),
    close: () => real.close(),
  }
}
