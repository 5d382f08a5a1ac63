import type { Context } from 'koa'

/** The address under which the client reaches us, without a path: `https://registry.example`. */
export function originOf(ctx: Context, publicUrl: string | undefined): string {
  return publicUrl ?? `${ctx.protocol}://${ctx.host}`
}
