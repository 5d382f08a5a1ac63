import assert from 'node:assert/strict'
import { type KeyObject, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { BearerTokens } from '../../src/access/bearer-tokens.ts'
import { signToken } from '../../src/auth/tokens.ts'

const NOW = 1_800_000_000
const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const FRAME = { issuer: 'berth', audience: 'berth', issuedAt: NOW, expiresAt: NOW + 600 }
const TOKEN = signToken({ kid: 'k1', key: pair.privateKey }, FRAME, {
  identity: { kind: 'user', name: 'alice', principalId: 7, epoch: 3 },
  access: [{ type: 'repository', name: 'team/app', actions: ['pull'] }],
  id: 'j1',
})

interface Scene {
  readonly bearers: BearerTokens
  /** What the rows say now, and whether what is remembered of them is young enough. */
  now: number
  keyIsKnown: boolean
  keyIsFresh: boolean
  epoch: number
  stateIsFresh: boolean
  verified: number
}

function setScene(): Scene {
  const scene: Scene = {
    bearers: new BearerTokens({
      keys: {
        find: async (): Promise<KeyObject | undefined> => (scene.keyIsKnown ? pair.publicKey : undefined),
        isKnown: () => scene.keyIsKnown && scene.keyIsFresh,
      },
      states: {
        isCurrent: async ({ epoch }) => epoch === scene.epoch,
        recall: ({ epoch }) => (scene.stateIsFresh ? epoch === scene.epoch : undefined),
      },
      foreign: {
        async verify() {
          scene.verified += 1
          return undefined
        },
      },
      service: 'berth',
      now: () => scene.now * 1000,
    }),
    now: NOW,
    keyIsKnown: true,
    keyIsFresh: true,
    epoch: 3,
    stateIsFresh: true,
    verified: 0,
  }
  return scene
}

const refused = { name: 'RegistryError', code: 'UNAUTHORIZED' }

test('a signature is checked once, and the token is then known without waiting', async () => {
  const scene = setScene()
  assert.equal(scene.bearers.recall(TOKEN), undefined)
  const access = await scene.bearers.access(TOKEN)
  assert.equal(access.may('pull', 'team/app'), true)
  assert.equal(scene.bearers.recall(TOKEN), access)
  assert.equal(await scene.bearers.access(TOKEN), access)
  assert.equal(scene.verified, 1)
})

test('a token that ends as a verified one does is not that one (RFC 7515 section 5.2)', async () => {
  const { bearers } = setScene()
  await bearers.access(TOKEN)
  const [head = '', , signature = ''] = TOKEN.split('.')
  const claims = Buffer.from(JSON.stringify({ sub: 'admin', iss: 'berth', aud: 'berth' })).toString('base64url')
  for (const forged of [`${head}.${claims}.${signature}`, signature, TOKEN.slice(1)]) {
    assert.equal(bearers.recall(forged), undefined)
    await assert.rejects(bearers.access(forged), refused)
  }
  assert.ok(bearers.recall(TOKEN) !== undefined)
})

/** What ends a token that was verified before, and whether what is remembered is enough to say so. */
const ENDS: Readonly<Record<string, (scene: Scene) => void>> = {
  'its time is over': scene => (scene.now = NOW + 600),
  'its key was distrusted': scene => (scene.keyIsKnown = false),
  'its principal was revoked': scene => (scene.epoch = 4),
  'its principal was revoked, by a row that must be read': scene => {
    scene.epoch = 4
    scene.stateIsFresh = false
  },
}
for (const [what, end] of Object.entries(ENDS)) {
  test(`a token that was verified is refused once ${what} (RFC 6750 section 3.1)`, async () => {
    const scene = setScene()
    await scene.bearers.access(TOKEN)
    end(scene)
    assert.equal(scene.bearers.recall(TOKEN), undefined)
    await assert.rejects(scene.bearers.access(TOKEN), refused)
  })
}

test('what is remembered and too old is asked for, and the token stays good', async () => {
  const scene = setScene()
  await scene.bearers.access(TOKEN)
  for (const age of [{ keyIsFresh: false }, { keyIsFresh: true, stateIsFresh: false }]) {
    Object.assign(scene, age)
    assert.equal(scene.bearers.recall(TOKEN), undefined)
    assert.equal((await scene.bearers.access(TOKEN)).may('pull', 'team/app'), true)
  }
})
