#!/usr/bin/env bash
# What a face leaves in the memory and the files of the service: enrols, revokes, waits for an
# expiry and turns strangers away, and searches the stopped process each time. Prints what is found.
#
# Needs the right to read another process's memory (root, or CAP_SYS_PTRACE).
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --test it -- forensics --nocapture --test-threads 1 "$@"
