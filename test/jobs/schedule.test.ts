import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { startJobs } from '../../src/jobs/schedule.ts'

const NEVER_MS = 3_600_000

void suite('background work', () => {
  test('runs at once when it is woken, and once more where it was under way', async () => {
    const began: PromiseWithResolvers<void>[] = [Promise.withResolvers(), Promise.withResolvers()]
    const gates: PromiseWithResolvers<void>[] = [Promise.withResolvers(), Promise.withResolvers()]
    let runs = 0
    const job = {
      name: 'work',
      everyMs: NEVER_MS,
      async run() {
        const run = runs++
        began[run]?.resolve()
        await gates[run]?.promise
      },
    }
    const schedule = startJobs([job], (_name, error) => assert.fail(String(error)))
    schedule.wake('work')
    await began[0]?.promise
    for (let count = 0; count < 3; count++) schedule.wake('work')
    schedule.wake('no such work')
    assert.equal(runs, 1)
    gates[0]?.resolve()
    await began[1]?.promise
    gates[1]?.resolve()
    await schedule.stop()
    assert.equal(runs, 2)
    schedule.wake('work')
    assert.equal(runs, 2)
  })

  test('a failure is reported, and what is ended by the stop is none', async () => {
    const faults: string[] = []
    const began = Promise.withResolvers<void>()
    const failed = Promise.withResolvers<void>()
    const schedule = startJobs(
      [
        { name: 'fails', everyMs: NEVER_MS, run: () => Promise.reject(new Error('no')) },
        {
          name: 'long',
          everyMs: NEVER_MS,
          async run(signal) {
            began.resolve()
            await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('stopped'))))
          },
        },
      ],
      name => {
        faults.push(name)
        failed.resolve()
      },
    )
    schedule.wake('fails')
    schedule.wake('long')
    await Promise.all([began.promise, failed.promise])
    await schedule.stop()
    assert.deepEqual(faults, ['fails'])
  })
})
