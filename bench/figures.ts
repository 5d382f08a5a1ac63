import { blobFigures } from './blob-figures.ts'
import type { Effort, Figure } from './figure.ts'
import { imageFigures } from './image-figures.ts'
import { listFigures } from './list-figures.ts'
import { manifestFigures } from './manifest-figures.ts'

const QUOTED = {
  repositories: 1000,
  seconds: 5,
  largeBytes: 1_000_000_000,
  tagPushes: 1000,
  tags: 10_000,
  layerBytes: 20_000_000,
}

/** How much is done: `quick` shows that everything runs, `normal` is what is quoted, `full` is all there is. */
export const EFFORTS = {
  quick: {
    repositories: 100,
    seconds: 1,
    largeBytes: 200_000_000,
    tagPushes: 100,
    tags: 300,
    layerBytes: 2_000_000,
    everything: false,
  },
  normal: { ...QUOTED, everything: false },
  full: { ...QUOTED, everything: true },
} as const satisfies Record<string, Effort>

/** Every figure, in the order of the table. Sizes are decimal: a GB is 10⁹ bytes. */
export function figures(effort: Effort): Figure[] {
  return [...manifestFigures(effort), ...blobFigures(effort), ...imageFigures(effort), ...listFigures(effort)]
}
