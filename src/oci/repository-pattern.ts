const COMPONENT = /^[a-z0-9*][a-z0-9._*-]*$/

/** What is wrong with a repository pattern, or undefined where it is sound. */
export function patternFault(pattern: string): string | undefined {
  if (pattern.length === 0 || pattern.length > 255) return 'a pattern has 1 to 255 characters'
  for (const component of pattern.split('/')) {
    if (component === '**') continue
    if (!COMPONENT.test(component) || component.includes('**')) {
      return 'a pattern is a repository name in which * stands for a part of one path component and ** for any number of components, such as team-a/** or */web'
    }
  }
  return undefined
}

/** Whether a pattern names the repository. `**` alone names all; `a/**` names what lies below `a`, not `a` itself. */
export function matchesPattern(pattern: string, name: string): boolean {
  return covers(pattern, name)
}

/** Whether every repository that `inner` (a pattern or a name) can name is named by `outer`. */
export function covers(outer: string, inner: string): boolean {
  return coversComponents(outer.split('/'), inner.split('/'))
}

/** Walks both lists together; remembers where the last `**` stood, so that the work is at most length by length. */
function coversComponents(outer: readonly string[], inner: readonly string[]): boolean {
  let at = 0
  let start = 0
  let retryOuter = -1
  let retryInner = 0
  while (start < inner.length) {
    const pattern = outer[at]
    if (pattern === '**') {
      retryOuter = at
      // `**` stands for one component or more, or `team-a/**` would name `team-a`.
      retryInner = start + 1
      at += 1
      start += 1
    } else if (pattern !== undefined && inner[start] !== '**' && coversText(pattern, inner[start] ?? '')) {
      at += 1
      start += 1
    } else if (retryOuter >= 0 && retryInner < inner.length) {
      at = retryOuter + 1
      retryInner += 1
      start = retryInner
    } else {
      return false
    }
  }
  return at === outer.length
}

/** `*` stands for any number of characters of one component; a `*` in `text` is only covered by one in `pattern`. */
function coversText(pattern: string, text: string): boolean {
  let at = 0
  let start = 0
  let retryPattern = -1
  let retryText = 0
  while (start < text.length) {
    if (pattern[at] === '*') {
      retryPattern = at
      retryText = start
      at += 1
    } else if (pattern[at] === text[start]) {
      at += 1
      start += 1
    } else if (retryPattern >= 0) {
      at = retryPattern + 1
      retryText += 1
      start = retryText
    } else {
      return false
    }
  }
  while (pattern[at] === '*') at += 1
  return at === pattern.length
}

/** A POSIX regular expression that matches the same names as the pattern, for filtering lists in the database. */
export function patternRegex(pattern: string): string {
  const components = pattern
    .split('/')
    .map(component =>
      component === '**' ? '[^/]+(/[^/]+)*' : component.replaceAll('.', '\\.').replaceAll('*', '[^/]*'),
    )
  return `^${components.join('/')}$`
}
