// One monitor, one object daemon and one gateway of Debian's Ceph, in memory, on loopback, without keys between them.
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from './free-port.ts'
import { type S3Server, type Spawn, until, untilAnswers } from './s3-server.ts'

const USER = { accessKeyId: 'berth', secretAccessKey: 'berth-secret' }

/** Starts Ceph under `directory`; about 15 s. */
export async function startCeph(directory: string, spawn: Spawn): Promise<S3Server> {
  for (const name of ['mon/a', 'osd/0', 'rgw', 'run', 'log']) mkdirSync(join(directory, name), { recursive: true })
  const config = join(directory, 'ceph.conf')
  const fsid = randomUUID()
  const monitor = `v1:127.0.0.1:${await freePort()}`
  const port = await freePort()
  writeFileSync(config, configuration(directory, fsid, monitor, port))
  const owner = ['--setuser', 'root', '--setgroup', 'root']
  const run = (program: string, ...args: string[]): string =>
    execFileSync(program, ['-c', config, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 90_000,
    })

  execFileSync('monmaptool', ['--create', '--addv', 'a', `[${monitor}]`, '--fsid', fsid, join(directory, 'monmap')], {
    stdio: 'pipe',
  })
  run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', join(directory, 'monmap'), ...owner)
  spawn('ceph-mon', ['-c', config, '-f', '-i', 'a', ...owner])
  run('ceph', '-s')
  const osd = randomUUID()
  run('ceph', 'osd', 'new', osd)
  run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osd, ...owner)
  const spawnOsd = () => spawn('ceph-osd', ['-c', config, '-f', '-i', '0', ...owner])
  let daemon = spawnOsd()
  await until('the object daemon is up', () => {
    // Now and then it speaks to the monitor before it knows the cluster's id, and ends by that.
    if (!daemon.isRunning()) daemon = spawnOsd()
    return /\b1 up\b/.test(run('ceph', 'osd', 'stat'))
  })
  const keys = [`--access-key=${USER.accessKeyId}`, `--secret-key=${USER.secretAccessKey}`]
  run('radosgw-admin', '-n', 'client.rgw', 'user', 'create', '--uid=berth', '--display-name=berth', ...keys)
  spawn('radosgw', ['-c', config, '-f', '-n', 'client.rgw', ...owner])
  const endpoint = `http://127.0.0.1:${port}`
  await untilAnswers(endpoint)
  return { endpoint, ...USER }
}

function configuration(directory: string, fsid: string, monitor: string, port: number): string {
  return `[global]
fsid = ${fsid}
mon_initial_members = a
mon_host = ${monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_warn_on_pool_no_redundancy = false
run_dir = ${directory}/run
admin_socket = ${directory}/run/$name.asok
log_file = ${directory}/log/$name.log
[mon]
mon_data = ${directory}/mon/$id
mon_data_avail_crit = 1
mon_data_avail_warn = 2
[osd]
osd_data = ${directory}/osd/$id
osd_objectstore = memstore
memstore_device_bytes = 17179869184
osd_memory_target = 1073741824
osd_class_load_list = *
osd_class_default_list = *
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:${port}
rgw_data = ${directory}/rgw
rgw_enable_apis = s3
rgw_dns_name = localhost
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 2
`
}
