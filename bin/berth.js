#!/usr/bin/env node
// Plain JavaScript on purpose: an older Node must be able to read it, to say what is missing.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NEEDED = 24
const major = Number(process.versions.node.split('.')[0])

/** The Node that the npm package `node` has installed, if its install script ran. */
function installedNode() {
  try {
    const file = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin', 'node')
    return existsSync(file) ? file : undefined
  } catch {
    return undefined
  }
}

/** Runs this file again on another Node, as if that were this process. */
function runOn(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', error => {
    console.error(`berth: ${node} cannot be run: ${error.message}`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]))
}

const node = major >= NEEDED ? undefined : installedNode()
if (major >= NEEDED) {
  // Node's own printer: without it the notice that SQLite is experimental stays unsaid.
  process.removeAllListeners('warning')
  await import('../src/cli.ts')
} else if (node !== undefined) {
  runOn(node)
} else {
  console.error(
    `Berth needs Node ${NEEDED} or newer; this is Node ${process.versions.node}.\n` +
      '`npm ci` brings it along unless install scripts are switched off: run `npm ci --ignore-scripts=false`,\n' +
      `or start Berth with a Node ${NEEDED} of your own.`,
  )
  process.exit(1)
}
