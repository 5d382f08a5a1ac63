/** JSON text that cannot be trusted. */
export class JsonFault extends Error {
  override readonly name = 'JsonFault'
}

/** Deeper than any manifest, far below what a recursive parser's stack can bear. */
const MAX_DEPTH = 64

/**
 * Parses JSON that a stranger sent: UTF-8 only, nesting bounded before anything recursive runs, and no key twice in the
 * outermost object, because two readers would see two different documents.
 * @throws JsonFault with what is wrong.
 */
export function parseUntrustedJson(bytes: Uint8Array): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new JsonFault('it is not UTF-8', { cause })
  }
  scan(text)
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new JsonFault('it is not JSON', { cause })
  }
}

function scan(text: string): void {
  const keys = new Set<string>()
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '{' || character === '[') {
      depth += 1
      if (depth > MAX_DEPTH) throw new JsonFault(`it is nested deeper than ${MAX_DEPTH} levels`)
    } else if (character === '}' || character === ']') depth -= 1
    else if (character === '"') {
      const end = endOfString(text, at)
      if (depth === 1 && isKey(text, end)) {
        const key = unescaped(text.slice(at, end + 1))
        if (keys.has(key)) throw new JsonFault(`it has the key ${key.slice(0, 100)} twice`)
        keys.add(key)
      }
      at = end
    }
  }
}

/** Whether the string that ends at `end` is followed by a colon. */
function isKey(text: string, end: number): boolean {
  let at = end + 1
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at += 1
  return text[at] === ':'
}

/** A key as a reader sees it: the same one can be written in several ways. */
function unescaped(literal: string): string {
  try {
    return String(JSON.parse(literal))
  } catch (cause) {
    throw new JsonFault('it is not JSON', { cause })
  }
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at += 1
    else if (text[at] === '"') return at
  }
  return text.length
}
