#!/bin/sh
# Makes the files in secrets/ that docker-compose.yml reads: passwords, keys, and a self-signed certificate.
# Usage: deploy/make-secrets.sh NAME-OR-ADDRESS. What is there already is kept, so a certificate of yours goes there first
# (secrets/tls.crt with its chain, secrets/tls.key).
set -eu

if [ $# -ne 1 ]; then
  echo 'usage: deploy/make-secrets.sh NAME-OR-ADDRESS, such as registry.example' >&2
  exit 64
fi
name=$1
cd "$(dirname "$0")/.."

# Docker shows each file to its containers as it is, and they run as different users: so the files are readable by all,
# in a directory that nobody else enters.
mkdir -p secrets
chmod 700 secrets
umask 022

# Writes standard input to secrets/$1, whole or not at all; what is there stays.
keep() {
  [ -e "secrets/$1" ] && return
  cat >"secrets/.$1"
  mv "secrets/.$1" "secrets/$1"
}

random() {
  openssl rand -hex "$1"
}

random 16 | keep admin-password
random 24 | keep postgres-password
printf 'postgres://berth:%s@postgres:5432/berth\n' "$(cat secrets/postgres-password)" | keep database-url
random 10 | keep s3-access-key-id
random 24 | keep s3-secret-access-key

if [ ! -e secrets/tls.crt ]; then
  if [ -e secrets/tls.key ]; then
    echo 'secrets/tls.key is there, but secrets/tls.crt is not' >&2
    exit 1
  fi
  case $name in
    *:*) alternative=IP:$name ;;
    *[!0-9.]*) alternative=DNS:$name ;;
    *) alternative=IP:$name ;;
  esac
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj "/CN=$name" \
    -addext "subjectAltName=$alternative" -addext basicConstraints=critical,CA:FALSE \
    -keyout secrets/.tls.key -out secrets/.tls.crt 2>/dev/null
  chmod 644 secrets/.tls.key
  mv secrets/.tls.key secrets/tls.key
  mv secrets/.tls.crt secrets/tls.crt
fi
echo "secrets/ is complete; the password of admin is in secrets/admin-password"
