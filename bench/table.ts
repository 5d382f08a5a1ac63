/** Every sample of one figure on one registry. */
export interface Series {
  readonly server: string
  readonly values: readonly number[]
  /** CPU seconds of the registry for one unit of work, in each round; empty where the figure has none. */
  readonly cpu: readonly number[]
  /** Most bytes resident in the registry's process in any round. */
  readonly peakBytes: number
  /** Rounds in which others used much of the machine, by number from 0. */
  readonly noisyRounds: readonly number[]
}

/** One figure on every registry. */
export interface Result {
  readonly figure: string
  readonly unit: string
  readonly better: 'higher' | 'lower'
  readonly work: string
  readonly series: readonly Series[]
}

/** The middle value; of an even number the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const [low, high] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]]
  return low === undefined || high === undefined ? Number.NaN : (low + high) / 2
}

function short(value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (value >= 100) return value.toFixed(0)
  return value.toPrecision(3)
}

function cpuText(seconds: number, work: string): string {
  if (!Number.isFinite(seconds)) return '–'
  return work === 'GB' ? `${short(seconds)} s/GB` : `${short(seconds * 1000)} ms/${work}`
}

const COLUMNS = ['figure', 'registry', 'median (min–max)', 'CPU', 'peak MB', 'ratio', 'CPU ratio', 'noisy rounds']

/** The head of the table in Markdown. */
export const TABLE_HEAD = [COLUMNS, COLUMNS.map(() => '---')].map(lineOf).join('\n')

/** The table in Markdown. Ratios are Berth's median over the peer's; a peer's row shows them for each Berth. */
export function renderTable(results: readonly Result[]): string {
  return [TABLE_HEAD, ...results.map(renderRows)].join('\n')
}

/** The rows of one figure. */
export function renderRows(result: Result): string {
  const ours = result.series.filter(({ server }) => server.startsWith('berth'))
  return result.series
    .map((series, index) => {
      const { values } = series
      const spread = `${short(median(values))} (${short(Math.min(...values))}–${short(Math.max(...values))})`
      const isPeer = !ours.includes(series)
      const against = (pick: (of: Series) => readonly number[]): string =>
        isPeer ? ours.map(berth => short(median(pick(berth)) / median(pick(series)))).join(' · ') : ''
      return lineOf([
        index === 0 ? `${result.figure}, ${result.unit}` : '',
        series.server,
        spread,
        cpuText(median(series.cpu), result.work),
        (series.peakBytes / 1e6).toFixed(0),
        against(of => of.values),
        against(of => of.cpu),
        series.noisyRounds.length === 0 ? '' : `${series.noisyRounds.length} of ${values.length}`,
      ])
    })
    .join('\n')
}

function lineOf(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
