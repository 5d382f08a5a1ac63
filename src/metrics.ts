import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'
import type { RequestRecord } from './middleware/request-log.ts'

/** The process's Prometheus metrics. */
export interface Metrics {
  observeRequest(record: RequestRecord): void
  contentType: string
  render(): Promise<string>
}

/** Metrics of one process; `version` labels `berth_build_info`. */
export function createMetrics(version: string): Metrics {
  const registers = [new Registry()]
  const register = registers[0] ?? new Registry()
  collectDefaultMetrics({ register })
  new Gauge({
    name: 'berth_build_info',
    help: 'Version of this process',
    labelNames: ['version', 'node'],
    registers,
  })
    .labels(version, process.version)
    .set(1)
  const requests = new Counter({
    name: 'berth_http_requests_total',
    help: 'Finished requests',
    labelNames: ['method', 'route', 'status'],
    registers,
  })
  const seconds = new Histogram({
    name: 'berth_http_request_duration_seconds',
    help: 'Time from the request line to the end of the response',
    labelNames: ['method', 'route'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600],
    registers,
  })
  const sent = new Counter({ name: 'berth_http_sent_bytes_total', help: 'Bytes sent', registers })
  const received = new Counter({
    name: 'berth_http_received_bytes_total',
    help: 'Bytes received',
    registers,
  })
  return {
    observeRequest(record) {
      requests.labels(record.method, record.route, String(record.status)).inc()
      seconds.labels(record.method, record.route).observe(record.durationMs / 1000)
      sent.inc(record.bytes)
      received.inc(record.received)
    },
    contentType: register.contentType,
    render: () => register.metrics(),
  }
}
