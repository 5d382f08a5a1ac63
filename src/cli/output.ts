import type { Row } from './api-client.ts'

/** A table for people: a line of headings, then a line for each row, columns padded with spaces. */
export function table(columns: readonly string[], rows: readonly Row[]): string {
  const lines = [columns.map(heading), ...rows.map(row => columns.map(column => cell(row[column])))]
  const widths = columns.map((_, index) => Math.max(...lines.map(line => (line[index] ?? '').length)))
  return lines
    .map(
      line =>
        `${line
          .map((text, index) => text.padEnd(widths[index] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** `lastUsedAt` → `LAST USED`. */
function heading(column: string): string {
  return column
    .replace(/At$/, '')
    .replaceAll(/([A-Z])/g, ' $1')
    .toUpperCase()
}

/** What says of itself what it is. */
const PLAIN = new Set(['kind', 'name', 'pattern', 'actions'])

function cell(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-'
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(cell).join(',')
  if (typeof value === 'object') {
    const parts = Object.entries(value).map(([key, part]) => (PLAIN.has(key) ? cell(part) : `${key}=${cell(part)}`))
    return parts.join(' ')
  }
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  // Times to the second are enough for people.
  return /^\d{4}-\d\d-\d\dT/.test(text) ? text.replace(/\.\d+Z$/, 'Z') : text.replaceAll(/[\p{Cc}]/gu, '?')
}

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']

/** An amount of bytes for people: `1.5 GB`, of 10⁹ bytes. */
export function bytes(count: number): string {
  const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3))
  const amount = count / 1000 ** power
  return `${power === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${BYTE_UNITS[power]}`
}
