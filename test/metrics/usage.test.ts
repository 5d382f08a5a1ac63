import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMetrics } from '../../src/metrics/metrics.ts'

const total = { repositories: 2, blobs: 3, bytes: 500, manifests: 4, tags: 5 }

void test('usage and quotas are gauges, and a quota that is gone is gone (Prometheus, Metric types)', async () => {
  const metrics = createMetrics('test')
  const stores = [{ store: 'files', blobs: 3, bytes: 300, trash_bytes: 20 }]
  const quota = { pattern: 'team/**', measure: 'logical', used_bytes: 90, limit_bytes: 100 } as const
  metrics.setUsage({ total, stores, quotas: [quota] })
  const text = await metrics.render()
  for (const line of [
    'berth_usage_bytes 500',
    'berth_usage_objects{kind="tags"} 5',
    'berth_store_bytes{store="files",kind="trash"} 20',
    'berth_quota_used_bytes{pattern="team/**",measure="logical"} 90',
    'berth_quota_limit_bytes{pattern="team/**",measure="logical"} 100',
  ]) {
    assert.ok(text.includes(`${line}\n`), `no ${line}`)
  }
  metrics.setUsage({ total, stores, quotas: [] })
  assert.doesNotMatch(await metrics.render(), /berth_quota_used_bytes\{/)
})
