import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { type RawRequest, type RawResponse, sendRaw } from '../support/raw-http.ts'
import { type TestServer, startServer } from '../support/server.ts'

/** Description, method, path, expected statuses (0: closed without an answer), expected codes, the rest of the request. */
type Row = readonly [
  description: string,
  method: string,
  path: string,
  statuses: number | readonly number[],
  codes?: string | readonly string[] | undefined,
  request?: Omit<RawRequest, 'method' | 'path'>,
]

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const BLOB = Buffer.alloc(2048, 'berth')
const KNOWN = `sha256:${createHash('sha256').update(BLOB).digest('hex')}`
const UNKNOWN = `sha256:${'0'.repeat(64)}`
const EMPTY_INDEX = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] })
const REPO = '/v2/hostile/repo'
const LONG = 'a'.repeat(300)
const MiB = 1024 * 1024
const HUGE = '9'.repeat(30)

const names: readonly (readonly [string, string, (number | readonly number[])?])[] = [
  ['upper case', 'Hostile'],
  ['an underscore first', '_hostile'],
  ['a dot first', '.hostile'],
  ['a hyphen last', 'hostile-'],
  ['three underscores', 'a___b'],
  ['a parent directory', '..'],
  ['parent directories', '../../etc'],
  ['an encoded parent directory', '..%2f..%2fetc'],
  ['encoded dots', '%2e%2e/a'],
  ['a parent directory encoded twice', '%252e%252e%252fetc'],
  ['NUL', 'a%00b'],
  ['NUL at the end', 'hostile/repo%00'],
  ['an encoded newline', 'a%0d%0ab'],
  ['an encoded space', 'a%20b'],
  ['an encoded backslash', '..%5c..%5cetc'],
  ['a malformed escape', 'a%zzb'],
  ['half an escape', 'a%2'],
  ['a percent sign', '%'],
  ['an overlong UTF-8 slash', 'a%c0%afb'],
  ['bytes that are no UTF-8', '%ff%fe'],
  ['an encoded surrogate', '%ed%a0%80'],
  ['a letter of another script', '%d0%b0lpine'],
  ['a semicolon', 'a;b=c'],
  ['an encoded question mark', 'a%3fb'],
  ['an encoded hash', 'a%23b'],
  ['a colon', 'a:5000/b'],
  ['two slashes', 'a//b', [400, 404]],
  ['a quote', "a'b"],
  ['SQL', "a';drop%20table%20manifest;--"],
  ['markup', '%3Cscript%3E'],
  ['300 characters', LONG],
  ['10,000 characters', 'a'.repeat(10_000)],
  ['a thousand parts', 'a/'.repeat(1000).slice(0, -1)],
  ['what makes a backtracking matcher slow', `${'a-'.repeat(3000)}!`],
]

const digests: readonly (readonly [string, string])[] = [
  ['the word of the conformance suite', 'sha256:baddigeststring'],
  ['no hex', 'sha256:'],
  ['upper-case hex', `sha256:${'A'.repeat(64)}`],
  ['upper-case algorithm', `SHA256:${'a'.repeat(64)}`],
  ['a digit less', `sha256:${'a'.repeat(63)}`],
  ['a digit more', `sha256:${'a'.repeat(65)}`],
  ['an unknown algorithm', `md5:${'a'.repeat(32)}`],
  ['a property of every object', `constructor:${'a'.repeat(64)}`],
  ['a path', 'sha256:..%2f..%2f..%2fetc%2fpasswd'],
  ['NUL', `sha256:${'a'.repeat(63)}%00`],
  ['a newline', `sha256:${'a'.repeat(64)}%0a`],
  ['10,000 digits', `sha256:${'a'.repeat(10_000)}`],
]

const nameRows: Row[] = names.map(([description, name, statuses = 400]): Row => [
  `a name with ${description}`,
  'GET',
  `/v2/${name}/tags/list`,
  statuses,
  ['NAME_INVALID', 'NAME_UNKNOWN'],
])

const writtenNameRows: Row[] = names
  .filter(([, , statuses]) => statuses === undefined)
  .slice(0, 12)
  .map(([description, name]): Row => [
    `an upload to a name with ${description}`,
    'POST',
    `/v2/${name}/blobs/uploads/`,
    400,
    'NAME_INVALID',
  ])

const digestRows: Row[] = digests.flatMap(([description, digest]): Row[] => [
  [
    `a blob digest with ${description}`,
    'GET',
    `${REPO}/blobs/${digest}`,
    [400, 404],
    ['DIGEST_INVALID', 'NAME_INVALID'],
  ],
  [`a pushed digest with ${description}`, 'PUT', `{upload}?digest=${digest}`, 400, 'DIGEST_INVALID'],
  [`a referrers digest with ${description}`, 'GET', `${REPO}/referrers/${digest}`, 400, 'DIGEST_INVALID'],
])

const referenceRows: Row[] = [
  ['a tag that starts with a dot', 'GET', `${REPO}/manifests/.a`, 400, 'TAG_INVALID'],
  ['a tag of 129 characters', 'GET', `${REPO}/manifests/${'a'.repeat(129)}`, 400, 'TAG_INVALID'],
  ['a tag with a plus', 'PUT', `${REPO}/manifests/a+b`, 400, 'TAG_INVALID', { body: EMPTY_INDEX }],
  ['a tag with NUL', 'GET', `${REPO}/manifests/a%00`, 400, 'TAG_INVALID'],
  ['a tag with a slash inside', 'GET', `${REPO}/manifests/a%2fb`, 400, 'TAG_INVALID'],
  ['a tag that is a parent directory', 'GET', `${REPO}/manifests/..`, 400, 'TAG_INVALID'],
  ['a tag that is an encoded parent directory', 'GET', `${REPO}/manifests/%2e%2e`, 400, 'TAG_INVALID'],
  ['a tag with a malformed escape', 'GET', `${REPO}/manifests/%zz`, 400, 'TAG_INVALID'],
  ['no tag', 'GET', `${REPO}/manifests/`, 404],
  ['a manifest digest that is none', 'GET', `${REPO}/manifests/sha256:x`, [400, 404], 'DIGEST_INVALID'],
  [
    'a manifest under a digest that is none',
    'PUT',
    `${REPO}/manifests/sha256:x`,
    400,
    'DIGEST_INVALID',
    { body: EMPTY_INDEX },
  ],
  [
    'a manifest under the digest of another',
    'PUT',
    `${REPO}/manifests/${UNKNOWN}`,
    400,
    'DIGEST_INVALID',
    { body: EMPTY_INDEX },
  ],
  ['deleting a digest that is none', 'DELETE', `${REPO}/manifests/sha256:x`, 400, 'DIGEST_INVALID'],
  ['deleting an unknown tag', 'DELETE', `${REPO}/manifests/none`, 404, ['MANIFEST_UNKNOWN', 'NAME_UNKNOWN']],
  ['an unknown manifest', 'GET', `${REPO}/manifests/${UNKNOWN}`, 404, 'MANIFEST_UNKNOWN'],
  ['an unknown manifest by HEAD', 'HEAD', `${REPO}/manifests/${UNKNOWN}`, 404],
  ['a bad name by HEAD', 'HEAD', '/v2/BAD/manifests/x', 400],
  [
    'a manifest of an unknown repository',
    'GET',
    '/v2/none/manifests/latest',
    404,
    ['MANIFEST_UNKNOWN', 'NAME_UNKNOWN'],
  ],
  ['an unknown blob', 'GET', `${REPO}/blobs/${UNKNOWN}`, 404, 'BLOB_UNKNOWN'],
  ['a blob of another repository', 'GET', `/v2/other/blobs/${KNOWN}`, 404, ['BLOB_UNKNOWN', 'NAME_UNKNOWN']],
  ['a blob as manifest', 'GET', `${REPO}/manifests/${KNOWN}`, 404, 'MANIFEST_UNKNOWN'],
  ['a bad tag beside a digest', 'PUT', `${REPO}/manifests/{index}?tag=-a`, 400, 'TAG_INVALID', { body: EMPTY_INDEX }],
  ['an empty tag beside a digest', 'PUT', `${REPO}/manifests/{index}?tag=`, 400, 'TAG_INVALID', { body: EMPTY_INDEX }],
  [
    'one bad tag among good ones',
    'PUT',
    `${REPO}/manifests/{index}?tag=a&tag=..&tag=b`,
    400,
    'TAG_INVALID',
    { body: EMPTY_INDEX },
  ],
  ['tags in brackets', 'PUT', `${REPO}/manifests/{index}?tag[]=..`, [201, 400], 'TAG_INVALID', { body: EMPTY_INDEX }],
  [
    'a thousand tags',
    'PUT',
    `${REPO}/manifests/{index}?${'tag=a&'.repeat(1000)}`,
    [400, 414, 431],
    'TAG_INVALID',
    { body: EMPTY_INDEX },
  ],
]

const rangeRows: Row[] = [
  ['a range that ends before it starts', 'bytes=500-0', 416],
  ['a range beyond the blob', 'bytes=5000-10000', 416],
  ['no suffix', 'bytes=-0', 416],
  ['a start past every double', `bytes=${'9'.repeat(400)}-`, 416],
  ['a range past 64 bits', `bytes=0-${HUGE}`, 206],
  ['a malformed range', 'bytes=a-b', 200],
  ['another unit', 'lines=0-1', 200],
  ['a thousand overlapping ranges', `bytes=${'0-,'.repeat(1000)}0-`, 200],
  ['2,000 ranges', `bytes=${'0-0,'.repeat(2000)}0-0`, 200],
  ['two ranges outside', 'bytes=9000-,8000-8001', 416],
].map(([description, header, status]): Row => [
  String(description),
  'GET',
  `${REPO}/blobs/${KNOWN}`,
  Number(status),
  'RANGE_INVALID',
  { headers: [`Range: ${header}`] },
])

const uploadRows: Row[] = [
  ...['', 'x', '5', '5-', '-5', '5-4', 'a-b', 'bytes */*', '0-1,2-3', `0-${HUGE}`, '-1-3', '0x0-0x3']
    .filter(header => header !== '')
    .map((header): Row => [
      `Content-Range ${header}`,
      'PATCH',
      '{upload}',
      400,
      'BLOB_UPLOAD_INVALID',
      { headers: [`Content-Range: ${header}`], body: 'abcd' },
    ]),
  [
    'a chunk ahead of the upload',
    'PATCH',
    '{upload}',
    416,
    'RANGE_INVALID',
    { headers: ['Content-Range: 10-13'], body: 'abcd' },
  ],
  [
    'a last chunk ahead of the upload',
    'PUT',
    `{upload}?digest=${KNOWN}`,
    416,
    'RANGE_INVALID',
    { headers: ['Content-Range: 10-13'], body: 'abcd' },
  ],
  [
    'a range longer than the body',
    'PATCH',
    '{upload}',
    400,
    'SIZE_INVALID',
    { headers: ['Content-Range: 0-9'], body: 'abcd' },
  ],
  [
    'a range shorter than the body',
    'PATCH',
    '{upload}',
    400,
    'SIZE_INVALID',
    { headers: ['Content-Range: 0-1'], body: 'abcd' },
  ],
  [
    'a range longer than a chunked body',
    'PATCH',
    '{upload}',
    [202, 400],
    'SIZE_INVALID',
    { headers: ['Content-Range: 0-9', 'Transfer-Encoding: chunked'], body: '4\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'closing with the digest of something else',
    'PUT',
    `{upload}?digest=${UNKNOWN}`,
    400,
    'DIGEST_INVALID',
    { body: 'abcd' },
  ],
  ['closing nothing with the digest of something', 'PUT', `{upload}?digest=${UNKNOWN}`, 400, 'DIGEST_INVALID'],
  ['closing without a digest', 'PUT', '{upload}', 400, 'DIGEST_INVALID', { body: 'abcd' }],
  ['closing with an empty digest', 'PUT', '{upload}?digest=', 400, 'DIGEST_INVALID', { body: 'abcd' }],
  ['closing with two digests', 'PUT', `{upload}?digest=${UNKNOWN}&digest=x`, 400, 'DIGEST_INVALID', { body: 'abcd' }],
  [
    'pushing at once with the wrong digest',
    'POST',
    `${REPO}/blobs/uploads/?digest=${UNKNOWN}`,
    400,
    'DIGEST_INVALID',
    { body: 'abcd' },
  ],
  [
    'pushing at once with no digest at all',
    'POST',
    `${REPO}/blobs/uploads/?digest=x`,
    400,
    'DIGEST_INVALID',
    { body: 'abcd' },
  ],
  ['an algorithm that is none', 'POST', `${REPO}/blobs/uploads/?digest-algorithm=md5`, 400],
  ['an algorithm every object has', 'POST', `${REPO}/blobs/uploads/?digest-algorithm=constructor`, 400],
  ['an upload that is none', 'PATCH', `${REPO}/blobs/uploads/x`, 404, 'BLOB_UPLOAD_UNKNOWN', { body: 'abcd' }],
  [
    'an upload that never was',
    'PATCH',
    `${REPO}/blobs/uploads/00000000-0000-4000-8000-000000000000`,
    404,
    'BLOB_UPLOAD_UNKNOWN',
    { body: 'abcd' },
  ],
  [
    'the upload of another repository',
    'PATCH',
    '/v2/other/blobs/uploads/{id}',
    404,
    'BLOB_UPLOAD_UNKNOWN',
    { body: 'abcd' },
  ],
  ['cancelling the upload of another repository', 'DELETE', '/v2/other/blobs/uploads/{id}', 404, 'BLOB_UPLOAD_UNKNOWN'],
  ['an upload outside the directory', 'GET', `${REPO}/blobs/uploads/..%2f..%2fetc`, 404, 'BLOB_UPLOAD_UNKNOWN'],
  ['an upload with NUL', 'GET', `${REPO}/blobs/uploads/%00`, 404, 'BLOB_UPLOAD_UNKNOWN'],
  ['a long upload id', 'DELETE', `${REPO}/blobs/uploads/${'a'.repeat(5000)}`, 404, 'BLOB_UPLOAD_UNKNOWN'],
  [
    'a close of an upload that never was',
    'PUT',
    `${REPO}/blobs/uploads/00000000-0000-4000-8000-000000000000?digest=${UNKNOWN}`,
    404,
    'BLOB_UPLOAD_UNKNOWN',
  ],
  ['deleting a blob that is none', 'DELETE', `${REPO}/blobs/${UNKNOWN}`, 404, 'BLOB_UNKNOWN'],
  ['deleting a digest that is none', 'DELETE', `${REPO}/blobs/sha256:x`, [400, 404], 'DIGEST_INVALID'],
]

/** A mount that cannot be is an upload: distribution-spec, "Mounting a blob from another repository". */
const mountRows: Row[] = [
  ['a mount of an unknown blob', `mount=${UNKNOWN}&from=hostile/repo`],
  ['a mount from an unknown repository', `mount=${KNOWN}&from=none`],
  ['a mount from what is no name', `mount=${KNOWN}&from=..%2f..%2fetc`],
  ['a mount from nothing', `mount=${KNOWN}&from=`],
  ['a mount from upper case', `mount=${KNOWN}&from=BAD`],
  ['a mount from NUL', `mount=${KNOWN}&from=%00`],
  ['a mount of no digest', 'mount=x&from=hostile/repo'],
  ['a mount of nothing', 'mount=&from=hostile/repo'],
  ['from without mount', 'from=hostile/repo'],
  ['a parameter nobody knows', 'origin=x&ns=y&__proto__=z'],
].map(([description, query]): Row => [description ?? '', 'POST', `/v2/hostile/mounted/blobs/uploads/?${query}`, 202])

const listRows: Row[] = [
  ...['-1', 'abc', '', '1.5', '1e3', '0x10', '%00', '+1', 'NaN', '%d9%a1'].flatMap((n): Row[] => [
    [`tags with n=${n}`, 'GET', `${REPO}/tags/list?n=${n}`, 400, 'PAGINATION_NUMBER_INVALID'],
    [`the catalog with n=${n}`, 'GET', `/v2/_catalog?n=${n}`, 400, 'PAGINATION_NUMBER_INVALID'],
  ]),
  ['tags with a huge n', 'GET', `${REPO}/tags/list?n=${HUGE}`, 200],
  ['the catalog with a huge n', 'GET', `/v2/_catalog?n=${HUGE}`, 200],
  ['tags with n past every double', 'GET', `${REPO}/tags/list?n=${'9'.repeat(400)}`, [200, 400]],
  ['tags in brackets', 'GET', `${REPO}/tags/list?n[]=1&last[a]=b`, 200],
  ['tags with n twice', 'GET', `${REPO}/tags/list?n=1&n=2`, 200],
  ['tags after NUL', 'GET', `${REPO}/tags/list?last=%00`, 200],
  ['tags after bytes that are no UTF-8', 'GET', `${REPO}/tags/list?last=%ff%fe`, 400, 'UNSUPPORTED'],
  ['tags after a surrogate', 'GET', `${REPO}/tags/list?last=%ed%a0%80`, 400, 'UNSUPPORTED'],
  ['tags after a malformed escape', 'GET', `${REPO}/tags/list?last=%zz`, 400, 'UNSUPPORTED'],
  ['tags after half an escape', 'GET', `${REPO}/tags/list?last=%a`, 400, 'UNSUPPORTED'],
  ['an upload with a malformed digest escape', 'POST', `${REPO}/blobs/uploads/?digest=sha256%zz`, 400, 'UNSUPPORTED'],
  ['a mount from a malformed escape', 'POST', `${REPO}/blobs/uploads/?mount=${KNOWN}&from=%e0%a4`, 400, 'UNSUPPORTED'],
  ['a digest that was encoded twice', 'GET', `${REPO}/blobs/${KNOWN.replace(':', '%253A')}`, 400, 'DIGEST_INVALID'],
  ['a name that was encoded twice', 'GET', `/v2/hostile%252Frepo/tags/list`, 400, 'NAME_INVALID'],
  ['tags after 10,000 characters', 'GET', `${REPO}/tags/list?last=${'z'.repeat(10_000)}`, 200],
  ['tags after a header', 'GET', `${REPO}/tags/list?n=1&last=%0d%0aX-Injected:%201`, 200],
  ['tags of an unknown repository', 'GET', '/v2/none/tags/list', 404, 'NAME_UNKNOWN'],
  ['the catalog after NUL', 'GET', '/v2/_catalog?last=%00', 200],
  ['referrers of an unknown repository', 'GET', `/v2/none/referrers/${UNKNOWN}`, 200],
  ['referrers of a bad name', 'GET', `/v2/NONE/referrers/${UNKNOWN}`, 400, 'NAME_INVALID'],
  ['referrers of a NUL type', 'GET', `${REPO}/referrers/${UNKNOWN}?artifactType=%00`, 400, 'UNSUPPORTED'],
  ['referrers of a type with a header', 'GET', `${REPO}/referrers/${UNKNOWN}?artifactType=a%0d%0aX-Injected:%201`, 200],
  ['referrers of a long type', 'GET', `${REPO}/referrers/${UNKNOWN}?artifactType=${'a'.repeat(10_000)}`, 200],
  ['referrers of a thousand types', 'GET', `${REPO}/referrers/${UNKNOWN}?${'artifactType=a&'.repeat(1000)}`, 200],
  ['referrers of a type in brackets', 'GET', `${REPO}/referrers/${UNKNOWN}?artifactType[a]=b`, 200],
  ['referrers with a bad n', 'GET', `${REPO}/referrers/${UNKNOWN}?n=-1`, 400, 'PAGINATION_NUMBER_INVALID'],
  ['referrers after NUL', 'GET', `${REPO}/referrers/${UNKNOWN}?last=%00`, [200, 400]],
]

const methodRows: Row[] = [
  ...['POST', 'PATCH', 'OPTIONS'].map((method): Row => [
    `${method} of a manifest`,
    method,
    `${REPO}/manifests/a`,
    [200, 405],
    'UNSUPPORTED',
  ]),
  ...['POST', 'PUT', 'PATCH'].map((method): Row => [
    `${method} of a blob`,
    method,
    `${REPO}/blobs/${KNOWN}`,
    405,
    'UNSUPPORTED',
  ]),
  ...['POST', 'PUT', 'DELETE'].map((method): Row => [
    `${method} of a tag list`,
    method,
    `${REPO}/tags/list`,
    405,
    'UNSUPPORTED',
  ]),
  ['PUT of the base', 'PUT', '/v2/', 405, 'UNSUPPORTED'],
  ['DELETE of the catalog', 'DELETE', '/v2/_catalog', 405, 'UNSUPPORTED'],
  ['a WebDAV method', 'PROPFIND', `${REPO}/manifests/a`, 405, 'UNSUPPORTED'],
  ['TRACE', 'TRACE', '/v2/', 405, 'UNSUPPORTED'],
  ['TRACE of a manifest', 'TRACE', `${REPO}/manifests/a`, 405, 'UNSUPPORTED'],
  ['a method nobody knows', 'BREW', '/v2/', 400, 'UNSUPPORTED'],
  ['a method in lower case', 'get', '/v2/', 400, 'UNSUPPORTED'],
  ['a method in mixed case', 'Put', `${REPO}/manifests/a`, 400, 'UNSUPPORTED'],
  ['no method', '', '/v2/', 400, 'UNSUPPORTED'],
  ['a method of 10,000 letters', 'A'.repeat(10_000), '/v2/', 400, 'UNSUPPORTED'],
  ['CONNECT', 'CONNECT', 'registry.example:443', 405, 'UNSUPPORTED'],
  ['CONNECT to a path', 'CONNECT', '/v2/', [400, 405], 'UNSUPPORTED'],
  ['OPTIONS of everything', 'OPTIONS', '*', 404, 'NAME_UNKNOWN'],
  ['OPTIONS of the base', 'OPTIONS', '/v2/', 200],
  ['OPTIONS of what is not there', 'OPTIONS', '/nothing', 404, 'NAME_UNKNOWN'],
  ['LOCK, of which no route has heard', 'LOCK', '/v2/', 405, 'UNSUPPORTED'],
  ['the connection preface of HTTP/2', 'PRI', '*', 400, 'UNSUPPORTED'],
  ['another API', 'GET', '/v1/_ping', 404],
  ['the root', 'GET', '/', [200, 404]],
  ['a directory of the repository', 'GET', REPO, 404],
  ['a part nobody knows', 'GET', `${REPO}/secrets/x`, 404],
  ['a path of 10,000 slashes', 'GET', `/v2${'/'.repeat(10_000)}`, [400, 404]],
  ['an absolute URL', 'GET', 'http://elsewhere.example/v2/none/tags/list', 404, 'NAME_UNKNOWN'],
  ['an absolute URL of another scheme', 'GET', 'file:///etc/passwd', [400, 404]],
  ['an absolute URL with credentials', 'GET', 'http://user:pass@elsewhere.example/v2/none/tags/list', [400, 404]],
  ['an absolute URL without a path', 'GET', 'http://elsewhere.example', [400, 404]],
  ['a URL without a scheme', 'GET', '//elsewhere.example/v2/', [400, 404]],
  ['an asterisk', 'GET', '*', [400, 404]],
  ['a path without a slash', 'GET', 'v2/', [400, 404]],
  ['a path outside', 'GET', '/../../../etc/passwd', [400, 404]],
  ['an encoded path outside', 'GET', '/v2/%2e%2e/%2e%2e/etc/passwd', [400, 404]],
]

const wireRows: Row[] = [
  ['a space in the path', 'GET', '/v2/a b/tags/list', 400],
  ['a control character in the path', 'GET', '/v2/a\u0001b/tags/list', [400, 404]],
  ['bytes above ASCII in the path', 'GET', '/v2/\u00ff/tags/list', [400, 404]],
  ['no Host', 'GET', '/v2/none/tags/list', 400, 'UNSUPPORTED', { noHost: true }],
  ['HTTP/1.0 without Host', 'GET', '/v2/none/tags/list HTTP/1.0\r\nX:', 404, 'NAME_UNKNOWN', { noHost: true }],
  ['two requests of which the second is none', 'GET', '/v2/ HTTP/1.1\r\nHost: a\r\n\r\n', [200, 400]],
  ['HTTP/0.9', 'GET', '/v2/\r\n', 400, 'UNSUPPORTED'],
  ['HTTP/2 in words', 'GET', '/v2/ HTTP/2.0\r\nX:', 400, 'UNSUPPORTED'],
  ['HTTP/9.9', 'GET', '/v2/ HTTP/9.9\r\nX:', 400, 'UNSUPPORTED'],
  ['a header folded over two lines', 'GET', '/v2/', 400, 'UNSUPPORTED', { headers: ['X: a', ' b'] }],
  ['a header that ends in a bare LF', 'GET', '/v2/', 400, 'UNSUPPORTED', { headers: ['X: a\nY: b'] }],
  ['a header that ends in a bare CR', 'GET', '/v2/', 400, 'UNSUPPORTED', { headers: ['X: a\rY: b'] }],
  ['an empty Host', 'GET', '/v2/none/tags/list', [400, 404], undefined, { headers: ['Host:'] }],
  ['two Hosts', 'GET', '/v2/none/tags/list', 400, 'UNSUPPORTED', { headers: ['Host: a', 'Host: b'] }],
  ['a header without a name', 'GET', '/v2/', 400, undefined, { headers: [': x'] }],
  ['a header with a space before its colon', 'GET', '/v2/', 400, undefined, { headers: ['X : y'] }],
  ['NUL in a header', 'GET', '/v2/', 400, undefined, { headers: ['X: a\0b'] }],
  ['a header of 100,000 characters', 'GET', '/v2/', 431, 'UNSUPPORTED', { headers: [`X: ${'a'.repeat(100_000)}`] }],
  [
    '3,000 headers',
    'GET',
    '/v2/none/tags/list',
    [404, 431],
    undefined,
    { headers: Array.from({ length: 3000 }, (_, index) => `X${index}: y`) },
  ],
  ['a path of 100,000 characters', 'GET', `/v2/${'a'.repeat(100_000)}/tags/list`, 431, 'UNSUPPORTED'],
  [
    'two Content-Lengths',
    'PATCH',
    '{upload}',
    400,
    undefined,
    { headers: ['Content-Length: 4', 'Content-Length: 5'], body: 'abcd' },
  ],
  ['a negative Content-Length', 'PATCH', '{upload}', 400, undefined, { headers: ['Content-Length: -1'], body: 'abcd' }],
  [
    'a Content-Length in letters',
    'PATCH',
    '{upload}',
    400,
    undefined,
    { headers: ['Content-Length: four'], body: 'abcd' },
  ],
  [
    'a Content-Length with a sign',
    'PATCH',
    '{upload}',
    400,
    undefined,
    { headers: ['Content-Length: +4'], body: 'abcd' },
  ],
  [
    'a Content-Length past 64 bits',
    'PATCH',
    '{upload}',
    400,
    undefined,
    { headers: [`Content-Length: ${HUGE}`], body: 'abcd' },
  ],
  [
    'a list as Content-Length',
    'PATCH',
    '{upload}',
    400,
    undefined,
    { headers: ['Content-Length: 4, 4'], body: 'abcd' },
  ],
  [
    'one length twice',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Content-Length: 4', 'Content-Length: 4'], body: 'abcd' },
  ],
  [
    'both framings the other way round',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked', 'Content-Length: 4'], body: '0\r\n\r\n' },
  ],
  [
    'both framings, one disguised by a tab',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Content-Length: 4', 'Transfer-Encoding:\tchunked'], body: '0\r\n\r\n' },
  ],
  [
    'both framings, one disguised by a space',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Content-Length: 4', 'Transfer-Encoding : chunked'], body: '0\r\n\r\n' },
  ],
  [
    'a framing in quotes',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: "chunked"'], body: '0\r\n\r\n' },
  ],
  [
    'a second request inside a body that ends before it',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    {
      headers: ['Transfer-Encoding: chunked', 'Transfer-Encoding: identity'],
      body: '0\r\n\r\nGET /v2/ HTTP/1.1\r\n\r\n',
    },
  ],
  [
    'a chunk size with a sign',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: '+4\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'a chunk size in C',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: '0x4\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'a chunk that ends in a bare LF',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: '4\nabcd\n0\n\n' },
  ],
  [
    'a chunk extension of 100,000 characters',
    'PATCH',
    '{upload}',
    413,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: `4;${'a'.repeat(100_000)}\r\nabcd\r\n0\r\n\r\n` },
  ],
  [
    'both framings at once',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Content-Length: 4', 'Transfer-Encoding: chunked'], body: '0\r\n\r\n' },
  ],
  [
    'an unknown Transfer-Encoding',
    'PATCH',
    '{upload}',
    [400, 501],
    undefined,
    { headers: ['Transfer-Encoding: rot13'], body: 'abcd', hangUp: true },
  ],
  [
    'chunked twice',
    'PATCH',
    '{upload}',
    [400, 501],
    undefined,
    { headers: ['Transfer-Encoding: chunked, identity'], body: '0\r\n\r\n' },
  ],
  [
    'a chunk size in letters',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: 'zz\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'a negative chunk size',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: '-4\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'a chunk size past 64 bits',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: 'fffffffffffffffff\r\nabcd' },
  ],
  [
    'a chunk longer than it says',
    'PATCH',
    '{upload}',
    400,
    'UNSUPPORTED',
    { headers: ['Transfer-Encoding: chunked'], body: '2\r\nabcd\r\n0\r\n\r\n' },
  ],
  [
    'a body that ends too early',
    'PATCH',
    '{upload}',
    [0, 400],
    undefined,
    { headers: ['Content-Length: 10'], body: 'abcd', hangUp: true },
  ],
  [
    'a close that ends too early',
    'PUT',
    `{upload}?digest=${KNOWN}`,
    [0, 400],
    undefined,
    { headers: ['Content-Length: 10'], body: 'abcd', hangUp: true },
  ],
  [
    'chunks without an end',
    'PATCH',
    '{upload}',
    [0, 400],
    undefined,
    { headers: ['Transfer-Encoding: chunked'], body: '4\r\nabcd\r\n', hangUp: true },
  ],
  [
    'a manifest that ends too early',
    'PUT',
    `${REPO}/manifests/cut`,
    [0, 400],
    undefined,
    { headers: ['Content-Length: 100'], body: '{', hangUp: true },
  ],
  [
    'a body longer than it says',
    'PUT',
    `${REPO}/manifests/long`,
    400,
    undefined,
    { headers: ['Content-Length: 4'], body: EMPTY_INDEX },
  ],
  [
    'an expectation nobody knows',
    'PATCH',
    '{upload}',
    417,
    'UNSUPPORTED',
    { headers: ['Expect: miracles'], body: 'abcd' },
  ],
  ['a request that is no HTTP', 'HELO', 'there\r\n\r\n', 400, 'UNSUPPORTED'],
  [
    'an upgrade',
    'GET',
    '/v2/none/tags/list',
    [400, 404],
    undefined,
    { headers: ['Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA'] },
  ],
]

const large: Row[] = [
  [
    'a manifest that says it has 100 MiB',
    'PUT',
    `${REPO}/manifests/large`,
    413,
    'MANIFEST_INVALID',
    {
      headers: [`Content-Length: ${100 * MiB}`, `Content-Type: ${OCI_INDEX}`],
      body: { chunk: Buffer.alloc(MiB, ' '), times: 100, chunked: false },
    },
  ],
  [
    'a manifest of 100 MiB that does not say so',
    'PUT',
    `${REPO}/manifests/large`,
    413,
    'MANIFEST_INVALID',
    {
      headers: ['Transfer-Encoding: chunked', `Content-Type: ${OCI_INDEX}`],
      body: { chunk: Buffer.alloc(MiB, ' '), times: 100, chunked: true },
    },
  ],
]

const CONFIG = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: KNOWN, size: BLOB.byteLength }
const IMAGE = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: CONFIG, layers: [] as unknown[] }
const DEEP = `${'['.repeat(200_000)}${']'.repeat(200_000)}`
const imageText = JSON.stringify(IMAGE)

const manifestBodies: readonly (readonly [string, unknown, string?])[] = [
  ['no body', ''],
  ['no JSON', '{'],
  ['markup', '<html></html>'],
  ['a YAML document', 'schemaVersion: 2'],
  ['bad UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])],
  ['a byte order mark', `\uFEFF${imageText}`],
  ['gzip', Buffer.from('1f8b0800000000000003', 'hex')],
  ['NUL', Buffer.alloc(1000)],
  ['random bytes', randomBytes(1000)],
  ['null', 'null'],
  ['an array', '[]'],
  ['a string', '"x"'],
  ['a number', '2'],
  ['deep JSON', DEEP],
  ['deep JSON in a field', imageText.replace('{', `{"x":${DEEP},`)],
  ['a key twice', imageText.replace('{', '{"layers":[{}],')],
  ['a key twice, once escaped', imageText.replace('{', String.raw`{"\u006cayers":[{}],`)],
  ['a huge integer', imageText.replace('"size":2048', '"size":99999999999999999999')],
  ['an infinite size', imageText.replace('"size":2048', '"size":1e999')],
  ['a negative size', { ...IMAGE, config: { ...CONFIG, size: -1 } }],
  ['layers and manifests', { ...IMAGE, manifests: [] }],
  ['another type than its header', { ...IMAGE, mediaType: OCI_INDEX }],
  ['a header nobody knows', IMAGE, 'text/plain'],
  [
    'schema 1',
    { schemaVersion: 1, name: 'a', tag: 'b', fsLayers: [] },
    'application/vnd.docker.distribution.manifest.v1+json',
  ],
  ['a layer whose digest is a path', { ...IMAGE, layers: [{ ...CONFIG, digest: 'sha256:../../etc/passwd' }] }],
  ['a subject whose digest is none', { ...IMAGE, subject: { ...CONFIG, digest: 'x' } }],
  ['NUL in artifactType', { ...IMAGE, artifactType: '\0' }],
  ['NUL in an annotation', { ...IMAGE, annotations: { a: '\0' } }],
]

const wrongTypes: readonly (readonly [string, unknown])[] = [
  ['schemaVersion', [null, '2', 2.5, [], {}, true]],
  ['mediaType', [null, 1, [], {}]],
  ['config', [null, 1, 'x', [], {}]],
  ['layers', [1, 'x', {}, [1], [null], [{}], [[]]]],
  ['subject', [1, 'x', [], {}]],
  ['artifactType', [1, [], {}]],
  ['annotations', [1, 'x', [1], { a: 1 }, { a: null }, { a: {} }]],
].map(([key, values]) => [key as string, values] as const)

const manifestRows: Row[] = [
  ...manifestBodies.map(([description, body, type = OCI_MANIFEST]): Row => [
    `a manifest with ${description}`,
    'PUT',
    `${REPO}/manifests/hostile`,
    400,
    'MANIFEST_INVALID',
    {
      headers: [`Content-Type: ${type}`],
      body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
    },
  ]),
  ...wrongTypes.flatMap(([key, values]) =>
    (values as unknown[]).map((value): Row => [
      `a manifest whose ${key} is ${JSON.stringify(value)}`,
      'PUT',
      `${REPO}/manifests/hostile`,
      400,
      'MANIFEST_INVALID',
      { headers: [`Content-Type: ${OCI_MANIFEST}`], body: JSON.stringify({ ...IMAGE, [key]: value }) },
    ]),
  ),
  ...['mediaType', 'digest', 'size'].flatMap(key =>
    [null, [], {}, true].map((value): Row => [
      `a config whose ${key} is ${JSON.stringify(value)}`,
      'PUT',
      `${REPO}/manifests/hostile`,
      400,
      'MANIFEST_INVALID',
      {
        headers: [`Content-Type: ${OCI_MANIFEST}`],
        body: JSON.stringify({ ...IMAGE, config: { ...CONFIG, [key]: value } }),
      },
    ]),
  ),
  [
    'an image whose layer is not there',
    'PUT',
    `${REPO}/manifests/hostile`,
    400,
    'MANIFEST_BLOB_UNKNOWN',
    { body: JSON.stringify({ ...IMAGE, layers: [{ ...CONFIG, digest: UNKNOWN }] }) },
  ],
  [
    'an image in a repository that is not there',
    'PUT',
    '/v2/fresh/manifests/a',
    400,
    'MANIFEST_BLOB_UNKNOWN',
    { body: imageText },
  ],
]

/** Legal by the specification, or harmless; whatever the answer, it is no fault of the server's. */
const strangeRows: Row[] = [
  [
    'an annotation with half a surrogate pair',
    'PUT',
    `${REPO}/manifests/odd`,
    [201, 400],
    'MANIFEST_INVALID',
    { body: imageText.replace('{', String.raw`{"annotations":{"a":"\ud800"},`) },
  ],
  [
    'an artifact type with half a surrogate pair',
    'PUT',
    `${REPO}/manifests/odd`,
    [201, 400],
    'MANIFEST_INVALID',
    { body: imageText.replace('{', String.raw`{"artifactType":"\ud800",`) },
  ],
  [
    'an artifact type of 20,000 characters',
    'PUT',
    `${REPO}/manifests/odd`,
    [201, 400],
    'MANIFEST_INVALID',
    { body: JSON.stringify({ ...IMAGE, artifactType: randomBytes(10_000).toString('hex') }) },
  ],
  [
    'a media type of 20,000 characters',
    'PUT',
    `${REPO}/manifests/odd`,
    [201, 400],
    'MANIFEST_INVALID',
    { body: JSON.stringify({ ...IMAGE, config: { ...CONFIG, mediaType: randomBytes(10_000).toString('hex') } }) },
  ],
  [
    'an annotation named like the prototype',
    'PUT',
    `${REPO}/manifests/odd`,
    201,
    undefined,
    { body: imageText.replace('{', '{"annotations":{"__proto__":"x","constructor":"y"},') },
  ],
  [
    'an index of 20,000 manifests that are not there',
    'PUT',
    `${REPO}/manifests/wide`,
    [201, 400],
    undefined,
    {
      body: JSON.stringify({
        schemaVersion: 2,
        manifests: Array.from({ length: 20_000 }, (_, index) => ({
          mediaType: OCI_MANIFEST,
          size: 1,
          digest: `sha256:${index.toString(16).padStart(64, '0')}`,
        })),
      }),
    },
  ],
  [
    'an image of 20,000 layers that are not there',
    'PUT',
    `${REPO}/manifests/wide`,
    400,
    'MANIFEST_BLOB_UNKNOWN',
    {
      body: JSON.stringify({
        ...IMAGE,
        layers: Array.from({ length: 20_000 }, (_, index) => ({
          mediaType: 'x/y',
          size: 1,
          digest: `sha256:${index.toString(16).padStart(64, '0')}`,
        })),
      }),
    },
  ],
  [
    'an image that is its own subject',
    'PUT',
    `${REPO}/manifests/self`,
    201,
    undefined,
    { body: JSON.stringify({ ...IMAGE, subject: { ...CONFIG, mediaType: OCI_MANIFEST } }) },
  ],
  [
    'a size that is not the size of the blob',
    'PUT',
    `${REPO}/manifests/liar`,
    [201, 400],
    undefined,
    { body: JSON.stringify({ ...IMAGE, config: { ...CONFIG, size: 1 } }) },
  ],
  [
    'the largest size',
    'PUT',
    `${REPO}/manifests/liar`,
    [201, 400],
    undefined,
    { body: JSON.stringify({ ...IMAGE, subject: { ...CONFIG, size: Number.MAX_SAFE_INTEGER } }) },
  ],
  [
    'a repository named v2/blobs/manifests',
    'PUT',
    '/v2/v2/blobs/manifests/manifests/manifests',
    201,
    undefined,
    { body: EMPTY_INDEX },
  ],
  ['the manifest of that repository', 'GET', '/v2/v2/blobs/manifests/manifests/manifests', 200],
  [
    'a repository named blobs/uploads',
    'PUT',
    '/v2/blobs/uploads/manifests/list',
    201,
    undefined,
    { body: EMPTY_INDEX },
  ],
  ['an upload to a repository named blobs/uploads', 'POST', '/v2/blobs/uploads/blobs/uploads/', 202],
  ['a repository named tags/list', 'PUT', '/v2/tags/list/manifests/tags', 201, undefined, { body: EMPTY_INDEX }],
  ['the tags of that repository', 'GET', '/v2/tags/list/tags/list', 200],
  ['a repository named referrers', 'GET', `/v2/referrers/referrers/${UNKNOWN}`, 200],
  ['the tags of a repository that ends in uploads', 'GET', '/v2/blobs/uploads/tags/list', 200],
  ['a digest with an encoded colon', 'GET', `${REPO}/blobs/${KNOWN.replace(':', '%3A')}`, 200],
  ['a digest with an encoded colon by HEAD', 'HEAD', `${REPO}/blobs/${KNOWN.replace(':', '%3a')}`, 200],
  ['a name with an encoded slash', 'GET', `/v2/hostile%2Frepo/blobs/${KNOWN}`, 200],
  [
    'a mount from a name with an encoded slash',
    'POST',
    `/v2/hostile/mounted/blobs/uploads/?mount=${KNOWN.replace(':', '%3A')}&from=hostile%2Frepo`,
    201,
  ],
  ['a body on a GET', 'GET', '/v2/', 200, undefined, { body: 'abcd' }],
  ['the base without its slash', 'GET', '/v2', [200, 404]],
  ['the base with a query', 'GET', '/v2/?__proto__[x]=y&a=z', 200],
  [
    'a chunk with an extension and a trailer',
    'PATCH',
    '{upload}',
    202,
    undefined,
    { headers: ['Transfer-Encoding: chunked'], body: '4;a="b"\r\nabcd\r\n0\r\nX: y\r\n\r\n' },
  ],
  [
    'If-None-Match that is malformed',
    'GET',
    `${REPO}/blobs/${KNOWN}`,
    200,
    undefined,
    { headers: ['If-None-Match: ",,W/"""'] },
  ],
  [
    'an Accept that is malformed',
    'GET',
    '/v2/v2/blobs/manifests/manifests/manifests',
    200,
    undefined,
    { headers: ['Accept: ;;q=x,,/'] },
  ],
  ['credentials nobody asked for', 'GET', '/v2/', [200, 401], undefined, { headers: ['Authorization: Basic %%%'] }],
  [
    'a forwarded host with markup',
    'POST',
    `${REPO}/blobs/uploads/`,
    202,
    undefined,
    { headers: ['X-Forwarded-Host: <script>', 'X-Forwarded-Proto: javascript'] },
  ],
]

const ROWS: readonly Row[] = [
  ...nameRows,
  ...writtenNameRows,
  ...digestRows,
  ...referenceRows,
  ...rangeRows,
  ...uploadRows,
  ...mountRows,
  ...listRows,
  ...methodRows,
  ...wireRows,
  ...large,
  ...manifestRows,
  ...strangeRows,
]

void suite('hostile requests', () => {
  let server: TestServer

  before(async () => {
    server = await startServer()
    const pushed = await sendRaw(server.host, {
      method: 'POST',
      path: `${REPO}/blobs/uploads/?digest=${KNOWN}`,
      body: BLOB,
    })
    assert.equal(pushed.status, 201)
  })
  after(() => server.stop())

  void test('there are enough of them', () => {
    assert.ok(ROWS.length >= 400, String(ROWS.length))
  })

  for (const [description, method, path, expected, codes, request] of ROWS) {
    void test(description, async () => {
      const response = await sendRaw(server.host, { ...request, method, path: await filled(server.host, path) })
      const statuses = typeof expected === 'number' ? [expected] : expected
      assert.ok(
        statuses.includes(response.status),
        `${response.status}, not ${statuses.join(' or ')}: ${response.body}`,
      )
      assert.ok(!response.headers.has('x-injected'))
      checkBody(response, method, codes)
      if (typeof request?.body === 'object' && 'times' in request.body) {
        assert.ok(response.sent < 50 * MiB, `refused only after ${response.sent} bytes`)
      }
    })
  }

  void test('after all of them the registry answers as before', async () => {
    const base = await sendRaw(server.host, { method: 'GET', path: '/v2/' })
    assert.equal(base.status, 200)
    assert.equal(base.body, '{}')
    const blob = await sendRaw(server.host, { method: 'GET', path: `${REPO}/blobs/${KNOWN}` })
    assert.equal(blob.body, BLOB.toString())
    assert.equal(server.process.exitCode, null)
  })
})

/** A path with an upload of its own where it asks for one. */
async function filled(host: string, path: string): Promise<string> {
  const index = `sha256:${createHash('sha256').update(EMPTY_INDEX).digest('hex')}`
  const known = path.replace('{index}', index)
  if (!/\{(?:upload|id)\}/.test(known)) return known
  const started = await sendRaw(host, { method: 'POST', path: `${REPO}/blobs/uploads/` })
  const location = started.headers.get('location') ?? ''
  assert.equal(started.status, 202)
  return known.replace('{upload}', location).replace('{id}', location.slice(location.lastIndexOf('/') + 1))
}

/** distribution-spec, "Error Codes": an error in JSON has the array `errors`, and each entry a code. */
function checkBody(response: RawResponse, method: string, codes: string | readonly string[] | undefined): void {
  if (response.status < 400 || method === 'HEAD') return
  assert.equal(response.headers.get('content-type'), 'application/json', response.body)
  assert.equal(response.headers.get('content-length'), String(Buffer.byteLength(response.body)))
  const { errors, ...rest } = JSON.parse(response.body) as { errors: { code: string; message: string }[] }
  assert.deepEqual(rest, {})
  assert.ok(errors.length > 0)
  const allowed = typeof codes === 'string' ? [codes] : codes
  for (const { code, message } of errors) {
    assert.match(code, /^[A-Z][A-Z_]*$/)
    assert.equal(typeof message, 'string')
    assert.ok(allowed === undefined || allowed.includes(code), `code ${code}: ${message}`)
  }
}
