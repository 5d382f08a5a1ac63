import { isReserved } from '../auth/identity.ts'
import { RegistryError } from '../oci/errors.ts'

const NAME = /^[a-z0-9][a-z0-9._@-]{0,99}$/
/** Robots are told apart by their names at a glance; `+` means nothing to any shell. */
export const ROBOT_PREFIX = 'robot+'

/** A name of a user, group, robot, token or rule. @throws RegistryError INVALID where its grammar is wrong. */
export function checkName(name: string, what: string): string {
  if (NAME.test(name)) return name
  throw new RegistryError('INVALID', {
    message: `the name of a ${what} has 1 to 100 characters of a-z 0-9 . _ @ - and begins with a letter or digit`,
  })
}

/** A name of a user. @throws RegistryError INVALID where its grammar is wrong or it means somebody else. */
export function checkUserName(name: string): string {
  if (isReserved(name)) throw new RegistryError('INVALID', { message: `${name} is the name of no single user` })
  return checkName(name, 'user')
}

/** The full name of a robot, whether it is given with or without its prefix. */
export function robotName(name: string): string {
  const bare = name.startsWith(ROBOT_PREFIX) ? name.slice(ROBOT_PREFIX.length) : name
  return `${ROBOT_PREFIX}${checkName(bare, 'robot')}`
}

/** @returns `value`. @throws RegistryError NOT_FOUND where it is undefined. */
export function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new RegistryError('NOT_FOUND', { message: `there is no ${what}` })
  return value
}

/** @throws RegistryError CONFLICT where `id` is undefined: the name is taken. */
export function unlessTaken(id: number | undefined, what: string): number {
  if (id === undefined) throw new RegistryError('CONFLICT', { message: `there is a ${what} already` })
  return id
}
