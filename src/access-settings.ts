import { z } from 'zod'
import { duration, EVER, issuers, type Setting, text, truth, whole } from './setting-values.ts'

/** Who logs in, and how. */
export const ACCESS_SETTINGS = {
  'auth.mode': {
    schema: z.enum(['open', 'token'], 'must be open or token').optional(),
    initial: undefined,
    about:
      'token: clients log in and may do what they were granted. open: whoever reaches the port may pull, push and delete. One of them is needed to listen beyond loopback.',
  },
  'auth.allowPlainHttp': {
    schema: truth,
    initial: false,
    about:
      'Take passwords and tokens also over plain HTTP from beyond loopback, where anybody on the way can read them.',
  },
  'auth.service': {
    schema: text.regex(/^[A-Za-z0-9._:/-]{1,200}$/, 'must be 1 to 200 characters of A-Z a-z 0-9 . _ : / -'),
    initial: 'berth',
    about: 'The name that tokens are issued for and by. Changing it ends every token.',
  },
  'auth.realm': {
    schema: z
      .url({ protocol: /^https?$/, error: 'must be a URL such as https://auth.example/token' })
      .transform(url => new URL(url).href)
      .optional(),
    initial: undefined,
    about:
      'Where clients are sent for tokens, where another server issues them (auth.issuers); without it to /token here.',
  },
  'auth.issuers': {
    schema: issuers.optional(),
    initial: undefined,
    about:
      'Other issuers of access tokens in Distribution’s form, each with issuer, audience (auth.service without it), and jwksUrl, keyFile or rootCertBundle; in the environment as JSON.',
  },
  'auth.adminPassword': {
    schema: text.min(12, 'must have at least 12 characters').optional(),
    initial: undefined,
    about: 'Password of the user admin that the first start makes; without it one is generated and shown once.',
    secret: true,
  },
  'auth.htpasswd': {
    schema: text.optional(),
    initial: undefined,
    about: 'An htpasswd file (bcrypt only) whose users can log in. Looked at again when it changes.',
  },
  'auth.tokenLifetime': {
    schema: duration('1m', '1d'),
    initial: '10m',
    about: 'How long an access token is good for; clients fetch a new one by themselves.',
  },
  'auth.revocationMaxAge': {
    schema: duration('0s', '10m'),
    initial: '30s',
    about:
      'A disabled, deleted or changed principal, and what a removed secret got, is refused by every process within this time.',
  },
  'auth.keyRotation': {
    schema: duration('1h', EVER),
    initial: '30d',
    about: 'How long a key signs tokens before the next one takes over.',
  },
  'auth.auditRetention': {
    schema: duration('1d', EVER),
    initial: '90d',
    about: 'Audit entries older than this are removed.',
  },
  'auth.guessesPerAccount': {
    schema: whole(1, 10_000),
    initial: 10,
    about: 'Wrong logins of one account from one address (IPv6: /64) in 5 minutes before it is held off there.',
  },
  'auth.guessesPerAddress': {
    schema: whole(1, 100_000),
    initial: 100,
    about:
      'Wrong logins from one address (IPv6: /64) in 5 minutes before it is held off; tokens and secrets of robots are counted apart.',
  },
  'auth.allowPrivateIssuers': {
    schema: truth,
    initial: false,
    about: 'Whether issuers of CI identities may be asked for keys over plain HTTP and at private addresses.',
  },
} as const satisfies Record<string, Setting>
