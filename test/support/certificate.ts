import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'

/** A certificate for 127.0.0.1 and localhost that signs itself, with its key, both PEM. */
export interface TestCertificate {
  readonly cert: string
  readonly key: string
}

/** What a certificate is to be, where not one that signs itself and is good for a day. */
export interface CertificateOptions {
  readonly name?: string
  /** Who issues it, under which name. */
  readonly issuer?: TestCertificate & { readonly name: string }
  /** Whether it may issue others. */
  readonly isAuthority?: boolean
  /** Hours from now at which it ends. */
  readonly endsInHours?: number
}

/** Makes a certificate for 127.0.0.1 and localhost: X.509 v3 by RFC 5280 section 4.1, on P-256. */
export function makeCertificate(options: CertificateOptions = {}): TestCertificate {
  const { name = 'berth test', issuer, isAuthority = false, endsInHours = 24 } = options
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const algorithm = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02))
  const hour = 3_600_000
  const validity = sequence(utcTime(Date.now() - 48 * hour), utcTime(Date.now() + endsInHours * hour))
  const names = sequence(tlv(0x82, Buffer.from('localhost')), tlv(0x87, Buffer.from([127, 0, 0, 1])))
  const basicConstraints = sequence(oid(0x55, 0x1d, 0x13), tlv(0x01, TRUE), tlv(0x04, sequence(tlv(0x01, TRUE))))
  const extensions = sequence(
    sequence(oid(0x55, 0x1d, 0x11), tlv(0x04, names)),
    ...(isAuthority ? [basicConstraints] : []),
  )
  const body = sequence(
    tlv(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([0x40]), randomBytes(8)])),
    algorithm,
    distinguishedName(issuer?.name ?? name),
    validity,
    distinguishedName(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    tlv(0xa3, extensions),
  )
  const signature = sign('sha256', body, issuer?.key ?? privateKey)
  const der = sequence(body, algorithm, tlv(0x03, Buffer.concat([Buffer.from([0]), signature])))
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

/** A certificate as `x5c` has it: RFC 7515 section 4.1.6. */
export function x5cOf({ cert }: TestCertificate): string {
  return cert.replaceAll(/-----[A-Z ]+-----|\n/g, '')
}

const TRUE = Buffer.from([0xff])

function distinguishedName(text: string): Buffer {
  return sequence(tlv(0x31, sequence(oid(0x55, 0x04, 0x03), tlv(0x0c, Buffer.from(text)))))
}

function tlv(tag: number, content: Buffer): Buffer {
  const size = content.byteLength
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), content])
}

const sequence = (...parts: Buffer[]): Buffer => tlv(0x30, Buffer.concat(parts))
const integer = (value: Buffer): Buffer => tlv(0x02, value)
const oid = (...bytes: number[]): Buffer => tlv(0x06, Buffer.from(bytes))

function utcTime(ms: number): Buffer {
  const text = new Date(ms).toISOString().replaceAll(/[-:T]/g, '')
  return tlv(0x17, Buffer.from(`${text.slice(2, 14)}Z`))
}
