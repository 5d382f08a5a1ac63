#!/usr/bin/env node
// Plain JavaScript on purpose: an older Node must be able to read it, to say what is missing.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const NEEDED = 24
const major = Number(process.versions.node.split('.')[0])
const bundled = fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url))
if (major >= NEEDED) {
  process.removeAllListeners('warning')
  await import('../src/cli.ts')
} else if (existsSync(bundled)) {
  const child = spawn(bundled, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1))
} else {
  console.error(
    `Berth needs Node ${NEEDED} or newer; this is Node ${process.versions.node}.\n` +
      'npm ci brings it along when install scripts may run: run npm ci again without --ignore-scripts,\n' +
      `or start Berth with a Node ${NEEDED} of your own.`,
  )
  process.exit(1)
}
