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

  void test('Retry-After is read as seconds or a date, and is an hour at most', () => {
    assert.equal(retryAfterMs('7'), 7_000)
    assert.equal(retryAfterMs('86400'), 3_600_000)
    assert.equal(retryAfterMs('soon'), undefined)
    assert.equal(retryAfterMs(undefined), undefined)
    const inAMinute = retryAfterMs(new Date(Date.now() + 60_000).toUTCString()) ?? 0
    assert.ok(inAMinute > 50_000 && inAMinute <= 60_000)
  })
})
