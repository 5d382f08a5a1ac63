#!/usr/bin/env bash
# Installs what the checks need on a Debian 12 machine: packages by apt, the conformance suite, crane, versitygw and Docker
# Compose by Go.
# Safe to run again; what is already there is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONFORMANCE_VERSION=v0.0.0-20260831232431-97274622c111
CRANE_VERSION=v0.22.1
VERSITYGW_VERSION=v1.8.0
COMPOSE_VERSION=v2.40.3
BIN_DIR=$PWD/.cache/bin
PACKAGES=(
  postgresql skopeo podman buildah docker.io containerd umoci docker-registry busybox-static
  crun runc uidmap iptables fuse-overlayfs wrk ceph-mon ceph-osd radosgw ceph-common
  haproxy iproute2 openssl
)

fail() {
  echo "install-ci: $*" >&2
  exit 1
}

# Tries a command up to four times, waiting a little longer after each failure.
retry() {
  local attempt
  for attempt in 1 2 3 4; do
    if "$@"; then return 0; fi
    echo "install-ci: attempt $attempt of 4 failed: $*" >&2
    if [ "$attempt" -lt 4 ]; then sleep $((attempt * 3)); fi
  done
  return 1
}

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    if ! is_installed "$package"; then missing+=("$package"); fi
  done
  if [ ${#missing[@]} -eq 0 ]; then
    echo "install-ci: all ${#PACKAGES[@]} packages are present"
    return
  fi
  command -v apt-get >/dev/null || fail "missing packages (${missing[*]}) and no apt-get to install them with"
  [ "$(id -u)" -eq 0 ] || fail "missing packages (${missing[*]}); run as root to install them"
  export DEBIAN_FRONTEND=noninteractive
  retry apt-get -q -o DPkg::Lock::Timeout=120 update </dev/null || fail "apt-get update failed"
  retry apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "${missing[@]}" </dev/null ||
    fail "could not install: ${missing[*]}"
  for package in "${missing[@]}"; do
    is_installed "$package" || fail "$package is still missing after its installation"
  done
}

# Installs a Go program pinned to a version; a stamp file tells which version the binary is.
install_go() {
  local name=$1 module=$2 version=$3
  local stamp=$BIN_DIR/.$name.version
  if [ -x "$BIN_DIR/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    echo "install-ci: $name $version is present"
    return
  fi
  retry env CGO_ENABLED=0 GOBIN="$BIN_DIR" go install "$module@$version" || fail "could not build $module@$version"
  [ -x "$BIN_DIR/$name" ] || fail "go install left no $BIN_DIR/$name"
  echo "$version" >"$stamp"
  echo "install-ci: $name $version installed"
}

# Compose has a go.mod that `go install MODULE@VERSION` refuses, so a module made for the moment requires it.
install_compose() {
  local version=$1 stamp=$BIN_DIR/.docker-compose.version module=github.com/docker/compose/v2 directory
  if [ -x "$BIN_DIR/docker-compose" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    echo "install-ci: docker-compose $version is present"
    return
  fi
  directory=$(mktemp -d)
  (cd "$directory" && go mod init compose && retry go get "$module/cmd@$version") ||
    fail "could not fetch $module@$version"
  local flags="-s -w -X $module/internal.Version=$version"
  retry env CGO_ENABLED=0 go build -C "$directory" -trimpath -ldflags "$flags" -o "$BIN_DIR/docker-compose" "$module/cmd" ||
    fail "could not build $module@$version"
  rm -rf "$directory"
  echo "$version" >"$stamp"
  echo "install-ci: docker-compose $version installed"
}

install_packages
command -v go >/dev/null || fail "Go is missing: install Go 1.24 or newer"
go_version=$(go env GOVERSION | sed 's/^go//')
printf '1.24\n%s\n' "$go_version" | sort -V -C || fail "Go $go_version is too old: 1.24 or newer is needed"
mkdir -p "$BIN_DIR"
install_go conformance github.com/opencontainers/distribution-spec/conformance "$CONFORMANCE_VERSION"
install_go crane github.com/google/go-containerregistry/cmd/crane "$CRANE_VERSION"
install_go versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW_VERSION"
install_compose "$COMPOSE_VERSION"
