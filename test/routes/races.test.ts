import { after, before, suite } from 'node:test'
import { describeRaces } from '../support/races.ts'
import { type TestServer, startServer } from '../support/server.ts'

void suite('races within one process', () => {
  let server: TestServer
  before(async () => {
    server = await startServer()
  })
  after(() => server.stop())
  describeRaces(() => server.url)
})
