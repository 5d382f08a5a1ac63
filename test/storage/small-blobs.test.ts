import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newKey } from '../../src/storage/keys.ts'
import { SmallBlobs } from '../../src/storage/small-blobs.ts'

void test('The blobs used last stay within the limit of bytes.', () => {
  const blobs = new SmallBlobs(10)
  const [first, second, third] = [newKey(), newKey(), newKey()]
  blobs.keep(first, Buffer.from('1234'))
  blobs.keep(second, Buffer.from('5678'))
  assert.equal(String(blobs.get(first)), '1234')
  blobs.keep(third, Buffer.from('90'))
  assert.equal(String(blobs.get(second)), '5678')
  blobs.keep(newKey(), Buffer.from('abc'))
  assert.equal(blobs.get(first), undefined)
  assert.equal(String(blobs.get(second)), '5678')
})

void test('A blob that is kept twice counts once, and one that is dropped is gone.', () => {
  const blobs = new SmallBlobs(10)
  const [first, second] = [newKey(), newKey()]
  blobs.keep(first, Buffer.from('12345'))
  blobs.keep(first, Buffer.from('12345'))
  blobs.keep(second, Buffer.from('67890'))
  assert.equal(String(blobs.get(first)), '12345')
  blobs.drop(first)
  assert.equal(blobs.get(first), undefined)
  assert.equal(String(blobs.get(second)), '67890')
})
