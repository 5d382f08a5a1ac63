/** Whether the index can hold a text: no NUL, and no half of a surrogate pair, which is no Unicode (RFC 7493 section 2.1). */
export function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}

/** A text as the index can hold it: what it cannot becomes U+FFFD. For records, which must not be refused. */
export function storable(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\uFFFD')
}
