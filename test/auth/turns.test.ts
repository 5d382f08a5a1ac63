import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Turns, TurnsTaken } from '../../src/auth/turns.ts'

const settle = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))

/** Work that tells when it begins and ends when it is told to. */
function stage(turns: Turns): {
  readonly begun: string[]
  readonly refused: string[]
  readonly ask: (party: string, name?: string) => void
  /** Ends what runs, one after the other, until nothing waits. */
  readonly endAll: () => Promise<void>
} {
  const begun: string[] = []
  const refused: string[] = []
  const running: (() => void)[] = []
  const asked: Promise<void>[] = []
  return {
    begun,
    refused,
    ask(party, name = party) {
      const work = async (): Promise<void> => {
        begun.push(name)
        await new Promise<void>(resolve => running.push(resolve))
      }
      const outcome = turns.take(party, work).catch((error: unknown) => {
        assert.ok(error instanceof TurnsTaken)
        refused.push(name)
      })
      asked.push(outcome)
    },
    async endAll() {
      await settle()
      for (let end = running.shift(); end !== undefined; end = running.shift()) {
        end()
        await settle()
      }
      await Promise.all(asked)
    },
  }
}

void suite('turns', () => {
  test('no more than so many run at once, in the order in which they came, also when some fail', async () => {
    const turns = new Turns(2, 10)
    const gates = Array.from({ length: 6 }, () => Promise.withResolvers<void>())
    const begun: number[] = []
    const all = Promise.allSettled(
      gates.map((gate, index) =>
        turns.take('one', async () => {
          begun.push(index)
          await gate.promise
          return index
        }),
      ),
    )
    await settle()
    assert.deepEqual(begun, [0, 1])
    gates[1]?.reject(new Error('it fails'))
    await settle()
    assert.deepEqual(begun, [0, 1, 2])
    for (const gate of gates) gate.resolve()
    const results = await all
    assert.deepEqual(begun, [0, 1, 2, 3, 4, 5])
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled', 'fulfilled'],
    )
    assert.equal(await turns.take('one', async () => 'again'), 'again')
  })

  test('parties take them one after the other, however many one of them asks for (CWE-400)', async () => {
    const { ask, begun, endAll } = stage(new Turns(1, 100))
    for (let index = 0; index < 5; index += 1) ask('stranger', `stranger ${index}`)
    ask('alice')
    ask('bob')
    await endAll()
    assert.deepEqual(begun, ['stranger 0', 'stranger 1', 'alice', 'bob', 'stranger 2', 'stranger 3', 'stranger 4'])
  })

  test('no more than so many wait: the newest of who has most waiting is refused (CWE-770)', async () => {
    const { ask, begun, refused, endAll } = stage(new Turns(1, 4))
    ask('stranger', 'runs')
    for (let index = 0; index < 6; index += 1) ask('stranger', `stranger ${index}`)
    await settle()
    assert.deepEqual(refused, ['stranger 4', 'stranger 5'])
    for (const name of ['alice', 'bob', 'carol']) ask(name)
    await settle()
    assert.deepEqual(refused, ['stranger 4', 'stranger 5', 'stranger 3', 'stranger 2', 'stranger 1'])
    ask('dave')
    await endAll()
    assert.equal(refused.at(-1), 'dave')
    assert.deepEqual(begun, ['runs', 'stranger 0', 'alice', 'bob', 'carol'])
  })
})
