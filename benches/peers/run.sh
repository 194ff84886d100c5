#!/usr/bin/env bash
# Assent's index and its peers on the same people and probes, as Markdown tables.
#
#   benches/peers/run.sh [--quick] [SIZE...] [-- OPTION...]
#
# SIZE is a number of templates; without any, 10000 100000 1000000. --quick is 10000 alone. What
# follows -- goes to `peers table`, for example --engines=usearch-i8,hnswlib or --noise-scale=0.5.
#
# Tables go to standard output, progress to standard error, and the same figures as lines of JSON
# to results.jsonl under target/. Needs Rust, a C++ compiler and Python 3.11 or later with venv and
# pip; on disk 2 GB for a million templates. README.md tells how long it takes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
mkdir -p "$target"
target=$(cd "$target" && pwd)

sizes=()
options=()
while (($# > 0)); do
    case $1 in
        --quick) sizes=(10000) ;;
        --)
            shift
            options=("$@")
            break
            ;;
        *[!0-9]* | '')
            echo "run.sh: \`$1\` is no size; options of \`peers table\` come after --" >&2
            exit 64
            ;;
        *) sizes+=("$1") ;;
    esac
    shift
done
if ((${#sizes[@]} == 0)); then sizes=(10000 100000 1000000); fi

need() { # COMMAND REMEDY
    if ! $1 --version >/dev/null 2>&1; then
        echo "run.sh: \`$1\` is missing: $2" >&2
        exit 69
    fi
}
need cargo "install Rust"
need "${CXX:-c++}" "install a C++ compiler"
need python3 "install Python 3.11 or later with venv and pip"

venv=$target/peers-venv
pins=$here/requirements.txt
if ! cmp -s "$pins" "$venv/pins"; then
    echo "installing hnswlib" >&2
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins" >&2
    cp "$pins" "$venv/pins"
fi

echo "building" >&2
CARGO_TARGET_DIR=$target cargo build --release --locked --manifest-path "$here/Cargo.toml" >&2

printf 'Assent at %s, %s, Linux %s, %s, ' \
    "$(git -C "$here" describe --always --dirty 2>/dev/null || echo unknown)" \
    "$(rustc --version)" "$(uname -r)" "$("${CXX:-c++}" --version | head -n 1)"
"$target/release/peers" table \
    --sizes "$(IFS=, && echo "${sizes[*]}")" \
    --data "$target/peers-data" \
    --python "$venv/bin/python" \
    --json "$target/results.jsonl" \
    ${options[@]+"${options[@]}"}
