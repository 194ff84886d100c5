#!/usr/bin/env bash
# Builds the program and lays out what the image takes from it: docker/build.sh OUT
set -euo pipefail
out=${1:?usage: docker/build.sh OUT}
cd "$(dirname "$0")/.."

cargo build --release --locked --bin assent
mkdir -p "$out/usr/local/bin" "$out/usr/share/doc/assent" "$out/data"
install -m 0755 "${CARGO_TARGET_DIR:-target}/release/assent" "$out/usr/local/bin/assent"
install -m 0644 LICENSE README.md "$out/usr/share/doc/assent/"
"$out/usr/local/bin/assent" --version
