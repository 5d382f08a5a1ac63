import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import { type ParsedManifest, parseManifest } from '../../src/oci/manifest.ts'
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
  baseMediaType,
  isForeignLayer,
  isManifestMediaType,
} from '../../src/oci/media-types.ts'

type Json = Readonly<Record<string, unknown>>

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const CONFIG = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digest('c'), size: 2 }
const LAYER = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digest('1'), size: 10 }
const IMAGE = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: CONFIG, layers: [LAYER] }
const CHILD = { mediaType: OCI_MANIFEST, digest: digest('2'), size: 5 }
const INDEX = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [CHILD] }

function parse(body: unknown, contentType?: string): ParsedManifest {
  return parseManifest(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), contentType)
}

function without(body: Json, key: string): Json {
  return Object.fromEntries(Object.entries(body).filter(([name]) => name !== key))
}

function refuses(body: string | Uint8Array | Json, said: RegExp, contentType?: string): void {
  const bytes = body instanceof Uint8Array ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  assert.throws(
    () => parseManifest(bytes, contentType),
    error => {
      assert.ok(error instanceof RegistryError, String(error))
      assert.equal(error.code, 'MANIFEST_INVALID')
      assert.equal(error.status, 400)
      assert.match(error.message, said)
      return true
    },
  )
}

void test('an image is its config and layers: image-spec manifest', () => {
  assert.deepEqual(parse(IMAGE, OCI_MANIFEST), {
    kind: 'image',
    mediaType: OCI_MANIFEST,
    artifactType: CONFIG.mediaType,
    blobs: [
      { digest: digest('c'), required: true },
      { digest: digest('1'), required: true },
    ],
    children: [],
    foreignLayers: 0,
  })
})

void test('an index is its manifests: image-spec image index', () => {
  assert.deepEqual(parse(INDEX, OCI_INDEX), {
    kind: 'index',
    mediaType: OCI_INDEX,
    blobs: [],
    children: [digest('2')],
    foreignLayers: 0,
  })
})

void test('Docker types are taken like their OCI counterparts', () => {
  assert.equal(parse({ ...IMAGE, mediaType: DOCKER_MANIFEST }, DOCKER_MANIFEST).kind, 'image')
  const list = parse({ ...INDEX, mediaType: DOCKER_LIST, manifests: [{ ...CHILD, mediaType: DOCKER_MANIFEST }] })
  assert.equal(list.kind, 'index')
  assert.deepEqual(list.children, [digest('2')])
})

void test('a digest that occurs twice is listed once', () => {
  const image = parse({ ...IMAGE, layers: [LAYER, LAYER, { ...LAYER, digest: CONFIG.digest }] })
  assert.deepEqual(
    image.blobs.map(blob => blob.digest),
    [digest('c'), digest('1')],
  )
  assert.deepEqual(parse({ ...INDEX, manifests: [CHILD, CHILD] }).children, [digest('2')])
})

void test('layers that lie elsewhere are left out: image-spec layer, "Non-Distributable Layers"', () => {
  const foreign = [
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    'application/vnd.oci.image.layer.nondistributable.v1.tar',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
  ]
  for (const mediaType of foreign) {
    assert.ok(isForeignLayer(mediaType), mediaType)
    assert.equal(parse({ ...IMAGE, layers: [{ ...LAYER, mediaType }] }).blobs.length, 1, mediaType)
  }
  assert.equal(parse({ ...IMAGE, layers: [{ ...LAYER, urls: ['https://a.example/x'] }] }).blobs.length, 1)
  assert.equal(parse({ ...IMAGE, layers: [{ ...LAYER, urls: [] }] }).blobs.length, 2)
  assert.ok(!isForeignLayer(`${foreign[1]}+brotli`))
  assert.ok(!isForeignLayer(LAYER.mediaType))
})

void test('entries of an index that are no manifests are blobs that need not exist', () => {
  // BuildKit's cache index: https://github.com/moby/buildkit/issues/2251
  const cache = { mediaType: 'application/vnd.buildkit.cacheconfig.v0', digest: digest('3'), size: 1 }
  const parsed = parse({ ...INDEX, manifests: [LAYER, cache, CHILD] })
  assert.deepEqual(parsed.children, [digest('2')])
  assert.deepEqual(parsed.blobs, [
    { digest: digest('1'), required: false },
    { digest: digest('3'), required: false },
  ])
})

void test('nothing is required of an empty index, of no layers or of unknown types', () => {
  assert.deepEqual(parse({ ...INDEX, manifests: [] }).children, [])
  assert.equal(parse({ ...IMAGE, layers: [] }).blobs.length, 1)
  const odd = parse({ ...IMAGE, config: { ...CONFIG, mediaType: 'x/y' }, layers: [{ ...LAYER, mediaType: 'z' }] })
  assert.equal(odd.artifactType, 'x/y')
  assert.equal(odd.blobs.length, 2)
})

void test('null stands for absence, as Go writes nil slices, maps and pointers: opencontainers/image-spec specs-go', () => {
  const image = parse({
    ...IMAGE,
    layers: null,
    manifests: null,
    subject: null,
    annotations: null,
    config: { ...CONFIG, urls: null, annotations: null },
  })
  assert.deepEqual(image.blobs, [{ digest: CONFIG.digest, required: true }])
  assert.equal(image.subject, undefined)
  assert.equal(image.annotations, undefined)
  const index = parse({ schemaVersion: 2, manifests: null, layers: null, subject: null, annotations: null })
  assert.equal(index.mediaType, OCI_INDEX)
  assert.deepEqual(index.children, [])
  assert.equal(parse({ schemaVersion: 2, config: CONFIG, manifests: null }).mediaType, OCI_MANIFEST)
  const layer = { ...LAYER, urls: null, annotations: null }
  assert.equal(parse({ ...IMAGE, layers: [layer] }).blobs.length, 2)
  refuses({ schemaVersion: 2, mediaType: OCI_INDEX }, /manifests is missing/)
})

void test('unknown fields and data are no fault', () => {
  const odd = { ...IMAGE, extra: { a: [1] }, config: { ...CONFIG, data: 'e30=', platform: {} } }
  assert.equal(parse(odd).kind, 'image')
})

void test('the artifact type is the own one, else of an image the config type: distribution-spec, "Listing Referrers"', () => {
  assert.equal(parse({ ...IMAGE, artifactType: 'a/b' }).artifactType, 'a/b')
  assert.equal(parse({ ...IMAGE, artifactType: '' }).artifactType, CONFIG.mediaType)
  assert.equal(parse({ ...INDEX, artifactType: 'a/b' }).artifactType, 'a/b')
  assert.ok(!('artifactType' in parse(INDEX)))
  assert.ok(!('artifactType' in parse({ ...INDEX, artifactType: '' })))
})

void test('subject and annotations are handed on, of images and indexes', () => {
  const annotations = { 'org.example': 'ä', __proto__x: '' }
  for (const body of [IMAGE, INDEX]) {
    const parsed = parse({ ...body, subject: { ...CHILD, annotations: { a: 'b' } }, annotations })
    assert.deepEqual(parsed.subject, { ...CHILD, annotations: { a: 'b' } })
    assert.deepEqual(parsed.annotations, annotations)
  }
})

void test('an annotation named like the prototype is an annotation', () => {
  const text = JSON.stringify(IMAGE).replace('{', '{"annotations":{"__proto__":"x"},')
  const { annotations } = parse(text)
  assert.deepEqual(Object.entries(annotations ?? {}), [['__proto__', 'x']])
})

void test('sha512 descriptors are taken', () => {
  const strong = `sha512:${'a'.repeat(128)}`
  assert.equal(parse({ ...IMAGE, layers: [{ ...LAYER, digest: strong }] }).blobs[1]?.digest, strong)
})

const TYPES: readonly (readonly [string, Json, string | undefined, string])[] = [
  ['the header', without(IMAGE, 'mediaType'), OCI_MANIFEST, OCI_MANIFEST],
  ['the header without its parameters', IMAGE, `${OCI_MANIFEST}; charset=utf-8`, OCI_MANIFEST],
  ['the header in lower case', IMAGE, OCI_MANIFEST.toUpperCase(), OCI_MANIFEST],
  ['the Docker header for a body that is silent', without(IMAGE, 'mediaType'), DOCKER_MANIFEST, DOCKER_MANIFEST],
  ['the body where there is no header', { ...IMAGE, mediaType: DOCKER_MANIFEST }, undefined, DOCKER_MANIFEST],
  ['the body where the header is empty', IMAGE, '', OCI_MANIFEST],
  ['the body where the header says JSON', INDEX, 'application/json', OCI_INDEX],
  ['the body where the header says bytes', INDEX, 'application/octet-stream', OCI_INDEX],
  ['the shape of an image', without(IMAGE, 'mediaType'), undefined, OCI_MANIFEST],
  ['the shape of an index', without(INDEX, 'mediaType'), undefined, OCI_INDEX],
]

for (const [description, body, contentType, mediaType] of TYPES) {
  void test(`the media type is ${description}`, () => {
    assert.equal(parse(body, contentType).mediaType, mediaType)
  })
}

const DEEP = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
const text = JSON.stringify(IMAGE)

const REFUSED: readonly (readonly [string, string | Uint8Array | Json, RegExp, string?])[] = [
  ['nothing', '', /JSON/],
  ['no JSON', '{', /JSON/],
  ['text after the JSON', `${text}x`, /JSON/],
  ['two documents', `${text}${text}`, /./],
  ['an open string', '{"a":"', /JSON/],
  ['an escape at the end', '{"a":"\\', /JSON/],
  ['no UTF-8', new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), /UTF-8/],
  ['UTF-16', Buffer.from(text, 'utf16le'), /JSON|UTF-8/],
  ['an encoded surrogate', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), /UTF-8/],
  ['a byte order mark', `\uFEFF${text}`, /JSON/],
  ['null', 'null', /object/],
  ['an array', '[]', /object/],
  ['a string', '"x"', /object/],
  ['a number', '2', /object/],
  ['deep arrays', DEEP, /nested/],
  ['a deep field', text.replace('{', `{"x":${DEEP},`), /nested/],
  ['deep objects', `${'{"a":'.repeat(100)}1${'}'.repeat(100)}`, /nested/],
  ['nesting without an end', '['.repeat(1_000_000), /nested/],
  ['closing brackets first', `${']'.repeat(1000)}${'['.repeat(1000)}`, /./],
  ...['schemaVersion', 'mediaType', 'config', 'layers', 'subject', 'artifactType', 'annotations'].map(
    key => [`${key} twice`, `{"${key}":1,${text.slice(1).replace('}', `},"${key}":2`)}`, /twice/] as const,
  ),
  ['a key twice, once escaped', text.replace('{', String.raw`{"\u006cayers":[],`), /twice/],
  ['a key twice, far from its colon', text.replace('{', `{"layers"${' '.repeat(100)}:[],`), /twice/],
  ['schema 1', { ...IMAGE, schemaVersion: 1 }, /schemaVersion/],
  ['no schemaVersion', without(IMAGE, 'schemaVersion'), /schemaVersion/],
  ['schemaVersion as text', { ...IMAGE, schemaVersion: '2' }, /schemaVersion/],
  ['schemaVersion 2.5', { ...IMAGE, schemaVersion: 2.5 }, /schemaVersion/],
  ['layers and manifests', { ...IMAGE, manifests: [] }, /exclude/],
  ['no config', without(IMAGE, 'config'), /config/],
  ['config as array', { ...IMAGE, config: [] }, /config/],
  ['layers as object', { ...IMAGE, layers: {} }, /layers/],
  ['layers as text', { ...IMAGE, layers: 'x' }, /layers/],
  ['a layer that is null', { ...IMAGE, layers: [null] }, /layers\[0\]/],
  ['an array as layer', { ...IMAGE, layers: [LAYER, []] }, /layers\[1\]/],
  ['manifests as text', { ...INDEX, manifests: 'x' }, /manifests/],
  ['an index without manifests', without(INDEX, 'manifests'), /manifests/],
  ['a number as entry', { ...INDEX, manifests: [1] }, /manifests\[0\]/],
  ['no digest', { ...IMAGE, config: without(CONFIG, 'digest') }, /config\.digest/],
  ['a malformed digest', { ...IMAGE, layers: [{ ...LAYER, digest: 'sha256:x' }] }, /layers\[0\]\.digest/],
  ['an unknown algorithm', { ...IMAGE, config: { ...CONFIG, digest: 'md5:0' } }, /config\.digest/],
  ['no size', { ...IMAGE, config: without(CONFIG, 'size') }, /config\.size/],
  ['a negative size', { ...IMAGE, config: { ...CONFIG, size: -1 } }, /size/],
  ['half a byte', { ...IMAGE, config: { ...CONFIG, size: 0.5 } }, /size/],
  ['a size as text', { ...IMAGE, config: { ...CONFIG, size: '2' } }, /size/],
  ['a size past what a double holds', text.replace('"size":2', '"size":9007199254740993'), /size/],
  ['a size past every double', text.replace('"size":2', '"size":1e999'), /size/],
  ['no media type of a descriptor', { ...IMAGE, config: without(CONFIG, 'mediaType') }, /config\.mediaType/],
  ['an empty media type of a descriptor', { ...IMAGE, config: { ...CONFIG, mediaType: '' } }, /config\.mediaType/],
  ['a media type that is a number', { ...IMAGE, mediaType: 1 }, /mediaType/],
  ['artifactType as object', { ...IMAGE, artifactType: {} }, /artifactType/],
  ['NUL in artifactType', { ...IMAGE, artifactType: 'a\0b' }, /artifactType/],
  ['half a surrogate pair in artifactType', { ...IMAGE, artifactType: '\uD800' }, /artifactType/],
  ['half a surrogate pair in an annotation', { ...IMAGE, annotations: { a: 'x\uDC00' } }, /annotations/],
  ['half a surrogate pair in the name of an annotation', { ...IMAGE, annotations: { '\uD800': '' } }, /annotations/],
  ['annotations as array', { ...IMAGE, annotations: ['a'] }, /annotations/],
  ['an annotation that is a number', { ...IMAGE, annotations: { a: 1 } }, /annotations/],
  ['NUL in an annotation', { ...IMAGE, annotations: { a: '\0' } }, /annotations/],
  ['NUL in the name of an annotation', { ...IMAGE, annotations: { '\0': 'a' } }, /annotations/],
  ['a subject that is a digest', { ...IMAGE, subject: digest('1') }, /subject/],
  ['a subject without digest', { ...INDEX, subject: without(CHILD, 'digest') }, /subject\.digest/],
  ['a header that contradicts the body', IMAGE, /Content-Type/, OCI_INDEX],
  ['a header of the other family', IMAGE, /Content-Type/, DOCKER_MANIFEST],
  ['a silent image sent as index', without(IMAGE, 'mediaType'), /layers/, OCI_INDEX],
  ['a silent index sent as image', without(INDEX, 'mediaType'), /manifests/, OCI_MANIFEST],
  ['a type that is none', IMAGE, /not an image manifest/, 'text/html'],
  [
    'schema 1 by header',
    without(IMAGE, 'mediaType'),
    /not an image manifest/,
    'application/vnd.docker.distribution.manifest.v1+json',
  ],
  ['signed schema 1 by header', IMAGE, /./, 'application/vnd.docker.distribution.manifest.v1+prettyjws'],
  ['an unknown type by body', { ...IMAGE, mediaType: 'application/x' }, /not an image manifest/],
]

for (const [description, body, said, contentType] of REFUSED) {
  void test(`a manifest is refused: ${description}`, () => refuses(body, said, contentType))
}

void test('a field that is called layers deeper down is no second field', () => {
  const nested = { ...IMAGE, annotations: { layers: 'layers', config: '"layers":' } }
  assert.equal(parse(nested).kind, 'image')
  assert.equal(parse({ ...IMAGE, x: { layers: 1, y: [{ layers: 2 }] } }).kind, 'image')
})

void test('a manifest of 4 MiB is parsed in reasonable time', () => {
  const annotations = Object.fromEntries(Array.from({ length: 390 }, (_, index) => [`k${index}`, 'x'.repeat(10_000)]))
  const started = performance.now()
  assert.equal(Object.keys(parse({ ...IMAGE, annotations }).annotations ?? {}).length, 390)
  assert.ok(performance.now() - started < 2000)
})

void test('media types are compared without parameters and case: RFC 9110 section 8.3.1', () => {
  assert.equal(baseMediaType(' Application/JSON ; charset=utf-8'), 'application/json')
  assert.equal(baseMediaType(''), '')
  assert.equal(baseMediaType(';'), '')
  for (const type of [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST]) assert.ok(isManifestMediaType(type))
  for (const type of ['', 'application/json', `${OCI_MANIFEST};x`, LAYER.mediaType]) {
    assert.ok(!isManifestMediaType(type), type)
  }
})
