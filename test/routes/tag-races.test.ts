import { after, before, suite } from 'node:test'
import { type AccessServer, startAccessServer } from '../support/access.ts'
import { describeTagRaces } from '../support/tag-races.ts'

void suite('tags that rules keep, within one process', () => {
  let server: AccessServer
  before(async () => {
    server = await startAccessServer()
  })
  after(() => server.stop())
  describeTagRaces(() => server)
})
