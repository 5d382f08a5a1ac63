import { RegistryError } from './errors.ts'

/** Bytes `start` to `end`, both inclusive. */
export interface InclusiveRange {
  readonly start: number
  readonly end: number
}

/** A Range header with more parts than this is answered with the whole content. */
export const MAX_RANGES = 1024

/**
 * The position of an upload chunk: distribution-spec, "Pushing a blob in chunks" (`<start>-<end>`; the `bytes ` that
 * RFC 9110 puts before it is tolerated).
 * @throws RegistryError BLOB_UPLOAD_INVALID where it is malformed.
 */
export function parseContentRange(header: string): InclusiveRange {
  const match = /^(?:bytes[ =])?(\d{1,16})-(\d{1,16})(?:\/(?:\*|\d{1,16}))?$/.exec(header.trim())
  const start = Number(match?.[1])
  const end = Number(match?.[2])
  if (match === null || !Number.isSafeInteger(start) || !Number.isSafeInteger(end) || end < start) {
    throw new RegistryError('BLOB_UPLOAD_INVALID', {
      message: 'Content-Range must be <first byte>-<last byte>',
      detail: { contentRange: header.slice(0, 100) },
    })
  }
  return { start, end }
}

/** What of a blob a Range header asks for. */
export type WantedRange =
  | { readonly kind: 'whole' }
  | { readonly kind: 'single'; readonly range: InclusiveRange }
  | { readonly kind: 'multi'; readonly ranges: readonly InclusiveRange[] }

const WHOLE: WantedRange = { kind: 'whole' }

/**
 * The bytes a Range header asks for of content of `size` bytes: RFC 9110 section 14.2. Malformed headers and other units
 * are ignored, as it says; several ranges that together exceed the content are answered with the whole of it.
 * @throws RegistryError RANGE_INVALID (416) where no range lies in the content.
 */
export function parseRange(header: string | undefined, size: number): WantedRange {
  const match = header === undefined ? null : /^bytes\s*=(.*)$/i.exec(header.trim())
  if (match === null) return WHOLE
  const specs = (match[1] ?? '')
    .split(',')
    .map(spec => spec.trim())
    .filter(spec => spec !== '')
  if (specs.length === 0 || specs.length > MAX_RANGES) return WHOLE
  const ranges: InclusiveRange[] = []
  for (const spec of specs) {
    const parts = /^(\d*)\s*-\s*(\d*)$/.exec(spec)
    if (parts === null || (parts[1] === '' && parts[2] === '')) return WHOLE
    const range = resolveRange(parts[1] ?? '', parts[2] ?? '', size)
    if (range !== undefined) ranges.push(range)
  }
  const [first] = ranges
  if (first === undefined) {
    throw new RegistryError('RANGE_INVALID', { headers: { 'Content-Range': `bytes */${size}` }, detail: { size } })
  }
  if (ranges.length === 1) return { kind: 'single', range: first }
  const total = ranges.reduce((sum, range) => sum + range.end - range.start + 1, 0)
  return total > size ? WHOLE : { kind: 'multi', ranges }
}

/** One range of a header in bytes of the content, or undefined where it lies outside or ends before it starts. */
function resolveRange(first: string, last: string, size: number): InclusiveRange | undefined {
  if (first === '') {
    const length = Math.min(Number(last), size)
    return length === 0 ? undefined : { start: size - length, end: size - 1 }
  }
  const start = Number(first)
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  return start >= size || end < start ? undefined : { start, end }
}

/** The framing of a multipart/byteranges body. `length` is the whole body's, in bytes. */
export interface MultipartFraming {
  readonly heads: readonly Buffer[]
  readonly tail: Buffer
  readonly length: number
}

/** What stands around each range of a multipart answer: RFC 9110 section 14.6. */
export function multipartParts(
  ranges: readonly InclusiveRange[],
  size: number,
  contentType: string,
  boundary: string,
): MultipartFraming {
  const heads = ranges.map(({ start, end }, index) =>
    Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${contentType}\r\nContent-Range: bytes ${start}-${end}/${size}\r\n\r\n`,
    ),
  )
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const content = ranges.reduce((sum, { start, end }) => sum + end - start + 1, 0)
  return { heads, tail, length: heads.reduce((sum, head) => sum + head.byteLength, content + tail.byteLength) }
}
