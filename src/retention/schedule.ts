import { nextRun, scheduleFault } from '../jobs/cron.ts'
import type { Database } from '../metadata/database.ts'
import { lockDuePolicy, setNextRun } from '../metadata/retention-policies.ts'
import { failRun, hasWaitingRun, insertRun } from '../metadata/retention-runs.ts'

/**
 * Asks for a run of each policy whose time has come: once, however many processes look, because who asks moves the
 * policy's time in the same transaction. Times that passed while no process ran are made up for by one run; while a run
 * of the policy is under way there is no other. Answers how many were asked for.
 */
export async function startDueRuns(db: Database): Promise<number> {
  for (let started = 0; ;) {
    const isDue = await db.transaction(async tx => {
      const policy = await lockDuePolicy(tx)
      if (policy === undefined) return undefined
      const at = { schedule: policy.schedule ?? '', timeZone: policy.time_zone }
      // A time zone can be gone from the system's data since.
      const fault = scheduleFault(at)
      await setNextRun(tx, policy.id, fault === undefined ? nextRun(at, policy.now) : undefined)
      if (await hasWaitingRun(tx, policy.id)) return false
      const id = await insertRun(tx, policy, { goal: 'run', isConfirmed: false, askedBy: 'schedule' })
      if (fault !== undefined) await failRun(tx, { id, epoch: 0 }, fault)
      return true
    })
    if (isDue === undefined) return started
    if (isDue) started += 1
  }
}
