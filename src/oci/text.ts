/** Whether the index can hold a text: no NUL, and no half of a surrogate pair, which is no Unicode (RFC 7493 section 2.1). */
export function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}
