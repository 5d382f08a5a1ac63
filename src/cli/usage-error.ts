/** A command line that means nothing; the message says what is wrong with it. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  /** What can be said instead; of the whole program where it is left out. */
  readonly help: string | undefined

  constructor(message: string, help?: string) {
    super(message)
    this.help = help
  }
}
