import { isIP } from 'node:net'
import { z } from 'zod'

/** A setting: how it is read, what it is without being set, and what a person is told about it. */
export interface Setting {
  readonly schema: z.ZodType
  readonly initial: string | number | boolean | undefined
  readonly about: string
  /** May be given as a file by the name with `_FILE`. */
  readonly secret?: boolean
}

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: SECOND, m: MINUTE, h: HOUR, d: DAY }
const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }

interface Bounds {
  readonly min: string
  readonly max: string
}

/** A number with a unit. What the pattern lets through is what the published schema lets through; the bounds are ours. */
function quantity(units: Readonly<Record<string, number>>, what: string, { min, max }: Bounds) {
  const names = Object.keys(units).filter(name => name !== '')
  const unit = '' in units ? `(?:${names.join('|')})?` : `(?:${names.join('|')})`
  const pattern = new RegExp(String.raw`^\d+(?:\.\d+)? ?${unit}$`)
  const valid = `must be a ${what}, from ${min} to ${max}`
  const amountOf = (text: string): number =>
    Number.parseFloat(text) * (units[text.replace(/^[\d. ]+/, '')] ?? Number.NaN)
  const [least, most] = [amountOf(min), amountOf(max)]
  const written = z.string(valid).regex(pattern, valid)
  const input = '' in units ? z.union([z.int(valid).nonnegative(valid), written], valid) : written
  return input.transform((value, context) => {
    const amount = Math.round(amountOf(String(value)))
    if (amount >= least && amount <= most) return amount
    context.addIssue({ code: 'custom', message: valid })
    return z.NEVER
  })
}

export const duration = (min: string, max: string) =>
  quantity(DURATION_UNITS, 'duration with its unit, such as 500ms, 30s, 10m, 24h or 7d', { min, max })
export const size = (min: string, max: string) =>
  quantity(SIZE_UNITS, 'size such as 64MiB, or a number of bytes', { min, max })

/** A whole number, from the environment as text. */
export function whole(min: number, max: number) {
  const valid = `must be a whole number from ${min} to ${max}`
  const bounded = z.int(valid).min(min, valid).max(max, valid)
  const written = z.string(valid).regex(/^\d+$/, valid).transform(Number).pipe(bounded)
  return z.union([bounded, written], valid)
}

export const port = whole(0, 65_535)
/** Beyond any clock or timer's reach is a slip of the pen, not a wish. */
export const EVER = '3650d'
export const truth = z.union(
  [z.boolean(), z.enum(['true', 'false']).transform(text => text === 'true')],
  'must be true or false',
)
export const text = z.string('must be text').min(1, { error: 'must not be empty', abort: true })
export const origin = text
  .regex(/^https?:\/\/[^/?#]+\/?$/, 'must be like https://s3.example.com:9000, without a path')
  // It is named in logs and errors.
  .refine(value => !value.includes('@'), 'must hold no user and password: they have settings of their own')

/** A list, as text with commas or as a list. */
const list = (valid: string) =>
  z
    .union([z.string(), z.array(z.string())], valid)
    .transform(value =>
      (typeof value === 'string' ? value.split(',') : value).map(one => one.trim()).filter(one => one !== ''),
    )

/** Names of users, robots and CI identities. */
export const names = list('must be names such as robot+scanner').refine(
  all => all.every(name => /^(?:(?:robot|ci)\+)?[a-z0-9][a-z0-9._@-]*$/.test(name)),
  'must be names of users, or such as robot+scanner and ci+web',
)

/** Addresses and networks. */
export const networks = list('must be addresses or networks such as 10.0.0.0/8').refine(
  all => all.every(isNetwork),
  'must be addresses or networks such as 10.0.0.0/8',
)

const httpUrl = z.url({ protocol: /^https?$/, error: 'must be a URL such as https://auth.example/keys' })
const issuer = z
  .strictObject(
    {
      issuer: text.describe('Exactly what its tokens say in iss.'),
      audience: text.optional().describe('What its tokens are made for; auth.service without it.'),
      jwksUrl: httpUrl.optional().describe('Where it publishes its keys, as a JWK set.'),
      keyFile: text.optional().describe('File with its public keys, as a JWK set or PEM.'),
      rootCertBundle: text
        .optional()
        .describe('File with certificates (PEM) that sign its tokens, or that issue those that do.'),
    },
    'must hold issuer, and jwksUrl, keyFile or rootCertBundle',
  )
  .refine(
    ({ jwksUrl, keyFile, rootCertBundle }) => [jwksUrl, keyFile, rootCertBundle].some(source => source !== undefined),
    'must name its keys by jwksUrl, keyFile or rootCertBundle',
  )

/** A list of issuers of tokens; in the environment as JSON. */
export const issuers = z.preprocess(
  value => (typeof value === 'string' ? parsed(value) : value),
  z.array(issuer, 'must be a list of issuers (in the environment as JSON)').max(100),
)

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // No list, which is what the schema says then.
    return text
  }
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}
