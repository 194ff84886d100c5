#!/usr/bin/env bash
# Makes keys and certificates to try compose.yaml with: docker/dev-secrets.sh [DIR]
# For trying only. In production the authority's key lives elsewhere, and so does root.key.
# Files are made for the image's user: run it as root, or change their owner to 65532 afterwards.
set -euo pipefail
umask 077
dir=${1:-$(dirname "$0")/secrets}
assent=${ASSENT:-assent}
mkdir -p "$dir"
cd "$dir"

sign() { # NAME SAN
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 \
        -extfile <(printf 'subjectAltName=%s\n' "$2") -out "$1.pem" 2>/dev/null
    rm "$1.csr"
}

[[ -f ca.pem ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
    -keyout ca.key -out ca.pem -subj "/CN=assent trial authority" 2>/dev/null
[[ -f server.pem ]] || sign server "DNS:assent,DNS:localhost,IP:127.0.0.1"
for caller in operator enroller north-gate-1; do
    [[ -f $caller.pem ]] || sign "$caller" "DNS:$caller.trial.example"
done
[[ -f root.key ]] || "$assent" keys init root.key >/dev/null
if [[ $(id -u) == 0 ]]; then chown 65532:65532 root.key server.key server.pem ca.pem; fi
echo "made in $PWD; certificates end in 90 days"
