import type { Server } from './servers.ts'

/** One measurement: the value in the figure's unit, and how many units of work the CPU seconds are divided by. */
export interface Sample {
  readonly value: number
  readonly work: number
}

/** Something that is measured on every registry. */
export interface Figure {
  readonly name: string
  readonly unit: string
  readonly better: 'higher' | 'lower'
  /** What one unit of work is, for the CPU column. */
  readonly work: string
  /** Rounds at most, where getting ready takes long. */
  readonly rounds?: number
  /** Done once for each registry, unmeasured. */
  prepare?(server: Server): Promise<void>
  /** Done before each sample, unmeasured. */
  warm?(server: Server): Promise<void>
  measure(server: Server, round: number): Promise<Sample>
}

/** How much is done: `quick` shows that everything runs, `normal` is what is quoted. */
export interface Effort {
  readonly repositories: number
  readonly seconds: number
  readonly largeBytes: number
  readonly tagPushes: number
  readonly tags: number
  /** Bytes of each of the ten layers of an image. */
  readonly layerBytes: number
  /** Also what takes long and is in no bar. */
  readonly everything: boolean
}

/** A second value of the same work, such as a time beside a rate: taken by `note` while the first is measured. */
export class SideFigure {
  readonly figure: Figure
  readonly #taken = new Map<string, number[]>()

  constructor(name: string, unit: string, work: string) {
    this.figure = {
      name,
      unit,
      better: 'lower',
      work,
      measure: async (server, round) => ({ value: this.#taken.get(server.name)?.[round] ?? Number.NaN, work: 0 }),
    }
  }

  /** The value of the round that is being measured. */
  note(server: Server, value: number): void {
    this.#taken.set(server.name, [...(this.#taken.get(server.name) ?? []), value])
  }
}
