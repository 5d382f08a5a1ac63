/** All warnings of an answer together: distribution-spec, "Warnings". */
const MAX_BYTES = 4096
const PREFIX = '299 - '

/**
 * Values of `Warning` headers, one for each text: `299 - "text"`, with neither an agent nor a date (distribution-spec,
 * "Warnings"). Those that do not fit in 4096 bytes any more are left out; what a header cannot hold becomes `?`.
 */
export function warningHeaders(texts: readonly string[]): string[] {
  const headers: string[] = []
  let left = MAX_BYTES
  for (const text of texts) {
    const header = `${PREFIX}"${text.replaceAll(/[^ -~]/g, '?').replaceAll(/["\\]/g, String.raw`\$&`)}"`
    if (header.length > left) continue
    headers.push(header)
    left -= header.length
  }
  return headers
}
