import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { UpstreamHealth, retryAfterMs } from '../../src/mirror/health.ts'
import { type FailureKind, UpstreamFailure } from '../../src/mirror/upstream-failure.ts'

const BACK_OFF = { failures: 3, firstMs: 100, mostMs: 400, limitedMs: 1_000 }

void suite('leaving an upstream alone: RFC 9110 section 10.2.3', () => {
  function scene(): {
    at: (ms: number) => void
    health: UpstreamHealth
    ask: (kind?: FailureKind, after?: string) => Promise<string>
  } {
    let now = 1
    const health = new UpstreamHealth(BACK_OFF, () => now)
    const ask = async (kind?: FailureKind, retryAfter?: string): Promise<string> => {
      let asked = false
      try {
        await health.run(async () => {
          asked = true
          if (kind !== undefined) throw new UpstreamFailure(kind, kind, retryAfter === undefined ? {} : { retryAfter })
        })
        return 'ok'
      } catch (error) {
        assert.ok(error instanceof UpstreamFailure)
        return asked ? `asked: ${error.kind}` : `left alone: ${error.kind}`
      }
    }
    return { at: ms => (now += ms), health, ask }
  }

  void test('after three failures in a row it is not asked, then one tries for all', async () => {
    const { at, health, ask } = scene()
    for (let turn = 0; turn < 3; turn += 1) assert.equal(await ask('failed'), 'asked: failed')
    assert.equal(await ask(), 'left alone: failed')
    at(100)
    const probe = Promise.withResolvers<void>()
    const probing = health.run(() => probe.promise)
    assert.equal(await ask(), 'left alone: failed')
    probe.resolve()
    await probing
    assert.equal(await ask(), 'ok')
  })

  void test('the pauses grow up to a limit', async () => {
    const { at, ask } = scene()
    for (let turn = 0; turn < 3; turn += 1) await ask('failed')
    for (const pause of [100, 200, 400, 400]) {
      at(pause - 1)
      assert.equal(await ask('failed'), 'left alone: failed')
      at(1)
      assert.equal(await ask('failed'), 'asked: failed')
    }
  })

  void test('"too many requests" is heeded at once, for as long as it says', async () => {
    const { at, ask } = scene()
    assert.equal(await ask('limited', '5'), 'asked: limited')
    at(4_999)
    assert.equal(await ask(), 'left alone: limited')
    at(1)
    assert.equal(await ask(), 'ok')
  })

  void test('what is absent or denied comes from an upstream that works', async () => {
    const { ask } = scene()
    for (let turn = 0; turn < 10; turn += 1) {
      assert.equal(await ask('failed'), 'asked: failed')
      assert.equal(await ask(turn % 2 === 0 ? 'absent' : 'denied'), `asked: ${turn % 2 === 0 ? 'absent' : 'denied'}`)
    }
  })

  void test('a failure that is not the upstream’s does not end a probe for ever', async () => {
    const { at, health, ask } = scene()
    for (let turn = 0; turn < 3; turn += 1) await ask('failed')
    at(100)
    await assert.rejects(health.run(() => Promise.reject(new Error('the client went'))))
    assert.equal(await ask(), 'ok')
  })

  /**
   * Steps: `a?` asks as a; `a=ok`, `a=absent`, `a=failed`, `a=limited:5` answers it; `a=gone`: its client went; `+100` time
   * passes. What each question becomes is told: asked, or left alone with the seconds of its Retry-After.
   */
  const table: readonly (readonly [string, string, string])[] = [
    ['a success resets the count of failures', 'a? a=failed b? b=failed c? c=ok d? d=failed e? e=failed f?', 'aaaaaa'],
    ['what came back late does not open what was closed since', 'a? b? b=limited:5 a=ok c? +4999 d? +1 e?', 'aa51a'],
    [
      'failures of before do not lengthen a pause',
      'a? b? c? d? e? a=failed b=failed c=failed d=failed e=failed +100 f?',
      'aaaaaa',
    ],
    ['"too many requests" of before does', 'a? b? a=limited:5 b=limited:9 +5000 c? +4000 d?', 'aa4a'],
    ['and never shortens one', 'a? b? a=limited:9 b=limited:5 +5000 c? +4000 d?', 'aa4a'],
    ['one request tries at a time, and the rest is left alone', 'a? a=limited:1 +1000 b? c? d? b=ok e? f?', 'aa11aa'],
    [
      'a probe that is told "too many requests" closes for as long as that says',
      'a? a=limited:1 +1000 b? b=limited:7 c? +7000 d?',
      'aa7a',
    ],
    ['a probe that finds nothing finds an upstream that works', 'a? a=limited:1 +1000 b? b=absent c? d?', 'aaaa'],
    [
      'a probe whose client went tells nothing: the next one tries',
      'a? a=limited:1 +1000 b? b=gone c? d? c=ok e?',
      'aaa1a',
    ],
    ['what came back during a probe does not open', 'a? z? a=limited:1 +1000 b? z=ok c? b=ok d?', 'aaa1a'],
    [
      '"too many requests" during a probe closes, and the probe does not open that',
      'a? z? a=limited:1 +1000 b? z=limited:5 b=ok c? +5000 d?',
      'aaa5a',
    ],
    ['no time at all is a little one all the same', 'a? a=limited:0 b? +100 c?', 'a1a'],
    ['an hour is the longest pause', 'a? a=limited:86400 +3599999 b? +1 c?', 'a1a'],
    [
      'a broken upstream that says how long is heeded within limits',
      'a? b? c? a=failed:99 b=failed:99 c=failed:99 +399 d? +1 e?',
      'aaa1a',
    ],
  ]
  for (const [what, steps, expected] of table) {
    void test(`${what}: ${steps}`, async () => {
      let now = 1
      const health = new UpstreamHealth(BACK_OFF, () => now)
      const open = new Map<string, PromiseWithResolvers<void> & { ended: Promise<void> }>()
      const told: string[] = []
      for (const step of steps.split(' ')) {
        const [, name = '', outcome, retryAfter] = /^(\w+)(?:\?|=(\w+)(?::(\d+))?)$/.exec(step) ?? []
        if (step.startsWith('+')) now += Number(step.slice(1))
        else if (outcome === undefined) {
          const answer = Promise.withResolvers<void>()
          let asked = false
          const ended = health
            .run(async () => {
              asked = true
              await answer.promise
            })
            .catch((error: unknown) => {
              if (!asked) told.push((error as UpstreamFailure).retryAfter ?? 'none')
            })
          await new Promise(setImmediate)
          if (asked) told.push('a')
          open.set(name, { ...answer, ended })
        } else {
          const asked = open.get(name)
          const kind = outcome as FailureKind | 'ok' | 'gone'
          if (kind === 'ok') asked?.resolve()
          else if (kind === 'gone') asked?.reject(new Error('the client went'))
          else asked?.reject(new UpstreamFailure(kind, kind, retryAfter === undefined ? {} : { retryAfter }))
          await asked?.ended
        }
      }
      assert.equal(told.join(''), expected)
      // Whatever is still asked is answered, so that nothing is left behind.
      for (const { resolve, ended } of open.values()) {
        resolve()
        await ended
      }
    })
  }

  void test('Retry-After is read as seconds or a date, and is an hour at most', () => {
    assert.equal(retryAfterMs('7'), 7_000)
    assert.equal(retryAfterMs('86400'), 3_600_000)
    assert.equal(retryAfterMs('soon'), undefined)
    assert.equal(retryAfterMs(undefined), undefined)
    const inAMinute = retryAfterMs(new Date(Date.now() + 60_000).toUTCString()) ?? 0
    assert.ok(inAMinute > 50_000 && inAMinute <= 60_000)
  })
})
