#!/usr/bin/env bash
# Healthy while the metrics port says that the service answers: docker/health.sh [PORT]
# Needs no certificate, and nothing but bash.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:-9464}"
printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
while IFS= read -r line <&3; do
    if [[ $line == "assent_serving 1"* ]]; then exit 0; fi
done
echo "not serving"
exit 1
