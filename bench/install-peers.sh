#!/usr/bin/env bash
# Builds the peers that the bench measures beside Berth into .cache/bin/peers, from the Go module proxy.
# Debian's docker-registry needs no building: apt-get install docker-registry wrk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .cache/bin/peers
GOBIN=$PWD/.cache/bin/peers
export GOBIN CGO_ENABLED=0
go install github.com/distribution/distribution/v3/cmd/registry@v3.1.1
go install zotregistry.dev/zot/v2/cmd/zot@v2.1.12 || echo 'install-peers: zot did not build and is left out' >&2
ls -l "$GOBIN"
