import { Cron } from 'croner'

/** Five fields of cron, in a time zone. */
export interface CronTime {
  readonly schedule: string
  /** An IANA name, such as Europe/Berlin. */
  readonly timeZone: string
}

/** What is wrong with a schedule, or undefined where it is sound. */
export function scheduleFault({ schedule, timeZone }: CronTime): string | undefined {
  try {
    return nextRun({ schedule, timeZone }, new Date()) === undefined ? 'the schedule names no time to come' : undefined
  } catch (error) {
    return `a schedule has five fields of cron, such as "0 3 * * *", and an IANA time zone: ${String(error)}`
  }
}

/**
 * The first time of a schedule after `after`; a time that the change to summer time leaves out is moved behind it, one
 * that it repeats is taken once. @throws where the schedule is not sound.
 */
export function nextRun({ schedule, timeZone }: CronTime, after: Date): Date | undefined {
  return new Cron(schedule, { timezone: timeZone, mode: '5-part' }).nextRun(after) ?? undefined
}
