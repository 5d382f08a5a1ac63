import { RE2JS } from 're2js'

/** A regular expression that is larger than this, compiled, is refused: what matching costs grows with it. */
const MAX_INSTRUCTIONS = 300
const MAX_LENGTH = 200
const GLOB = /^[A-Za-z0-9_.*?-]+$/
const SYNTAX =
  'is a glob, in which * stands for any number of characters and ? for one, or a regular expression (RE2) between slashes, such as v* or /v\\d+\\.\\d+\\.\\d+/'

/** What is wrong with a pattern of tags, or undefined where it is sound. */
export function tagPatternFault(pattern: string): string | undefined {
  if (pattern.length === 0 || pattern.length > MAX_LENGTH) return `a pattern of tags has 1 to ${MAX_LENGTH} characters`
  const expression = expressionOf(pattern)
  if (expression === undefined) return GLOB.test(pattern) ? undefined : `a pattern of tags ${SYNTAX}`
  try {
    return RE2JS.compile(expression).programSize() > MAX_INSTRUCTIONS
      ? 'the regular expression is too large'
      : undefined
  } catch (error) {
    return `a pattern of tags ${SYNTAX}: ${error instanceof Error ? error.message : String(error)}`
  }
}

/**
 * Matches whole tags against a sound pattern, in time linear in the length of the tag whatever the pattern is: those who
 * write patterns are not all trusted with the process.
 */
export function tagMatcher(pattern: string): (tag: string) => boolean {
  const expression = RE2JS.compile(expressionOf(pattern) ?? globExpression(pattern))
  return tag => expression.matches(tag)
}

function expressionOf(pattern: string): string | undefined {
  return /^\/.+\/$/s.test(pattern) ? pattern.slice(1, -1) : undefined
}

function globExpression(glob: string): string {
  return glob.replaceAll('.', '\\.').replaceAll('?', '.').replaceAll('*', '.*')
}
