import { openSync, closeSync, fsyncSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openEngine } from './embedded-files.ts'

// Runs as a process of its own: initialising needs several times the memory that running does.
const directory = process.argv[2]
if (directory === undefined) throw new Error('usage: embedded-init.ts DIRECTORY')
const engine = await openEngine(directory)
await engine.close()
for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() && !entry.isDirectory()) continue
  const fd = openSync(join(entry.parentPath, entry.name), 'r')
  fsyncSync(fd)
  closeSync(fd)
}
process.exit(0)
