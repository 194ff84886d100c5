#!/usr/bin/env bash
# Lays out the image's /models: docker/models.sh BAKE OUT
# BAKE=1 fetches models and runtime into it; BAKE=0 leaves only the script, for a volume.
set -euo pipefail
bake=${1:?usage: docker/models.sh 0|1 OUT}
out=${2:?usage: docker/models.sh 0|1 OUT}
cd "$(dirname "$0")/.."

mkdir -p "$out"
case $bake in
    0) leave=(--exclude=./runtime --exclude='*.onnx' --exclude=./*/photos) ;;
    1) leave=() && bash models/fetch.sh ;;
    *)
        echo "docker/models.sh: BAKE_MODELS must be 0 or 1, not \"$bake\"" >&2
        exit 64
        ;;
esac
tar -C models --exclude=./.cache "${leave[@]}" -cf - . | tar -C "$out" -xf -
