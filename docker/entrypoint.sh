#!/usr/bin/env bash
# The image's entry point: tells what is missing before the program does, then becomes it.
set -euo pipefail
models=${ASSENT_MODELS_DIR:-/models}

if [[ ${1:-serve} == serve && ! -f $models/runtime/current ]]; then
    cat >&2 <<TEXT
assent: there are no models in $models.
Mount a folder that \`models/fetch.sh\` has filled there, or build the image with
--build-arg BAKE_MODELS=1.
TEXT
    exit 64
fi
exec assent "$@"
