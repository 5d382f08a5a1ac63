import { UsageError } from './usage-error.ts'

const UNITS: readonly (readonly [string, number])[] = [
  ['TB', 1e12],
  ['GB', 1e9],
  ['MB', 1e6],
  ['kB', 1e3],
]
const BINARY: Readonly<Record<string, number>> = { kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40 }

/** Bytes in a size such as `500GB` (powers of 1000) or `500GiB` (of 1024). @throws UsageError */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text)
  const unit = (match?.[2] ?? '').toLowerCase()
  const decimal = UNITS.find(([name]) => name.toLowerCase() === unit)?.[1]
  const factor = unit === '' || unit === 'b' ? 1 : (decimal ?? BINARY[unit])
  if (match === null || factor === undefined) {
    throw new UsageError(`${text}: write a size such as 500GB or 500GiB`, '')
  }
  return Math.round(Number(match[1]) * factor)
}

/** A number of bytes as people read it: `1.5 GB`. */
export function formatSize(bytes: number): string {
  const size = Math.abs(bytes)
  const [unit, factor] = UNITS.find(([, least]) => size >= least) ?? ['B', 1]
  const number = factor === 1 ? String(size) : (size / factor).toFixed(1)
  return `${bytes < 0 ? '-' : ''}${number} ${unit}`
}
