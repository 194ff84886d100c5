#!/usr/bin/env bash
# A service of its own under load from outside: what docs/performance.md reports.
#
#   benches/service.sh up DIR FACES    set it up in DIR, enrol the first photo of each person of FACES
#                                      (person/photo.jpg), leave it running on 127.0.0.1:7400
#   benches/service.sh fill DIR N      enrol at least N templates of nobody more
#   benches/service.sh run DIR WHAT    photos | crops | embeddings | overload | soak
#   benches/service.sh memory DIR      resident memory of the service
#   benches/service.sh down DIR        stop it; DIR stays
#
# `up` again starts what `down` stopped; with TLS=1 for `up` and `run` it serves mutual TLS (once
# people are enrolled; needs openssl). EXTRA names a file of TOML for the configuration's end, PORT
# another port, SECONDS_EACH another time for each step, ASSENT another binary than that of
# `cargo build --release`.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
assent=${ASSENT:-$root/target/release/assent}
port=${PORT:-7400}
export ASSENT_SERVER=http${TLS:+s}://127.0.0.1:$port
each=${SECONDS_EACH:-10}
gate=(--gate north-gate-1 ${TLS:+--contract w600k_mbf/arcface-112/rgb/1})
consent=(--controller maple-property --consent "$root/docs/example-consent.toml")

usage() {
    sed -n '2,/^set/{/^set/!p}' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 64
}

certificates() { # DIR
    local name
    mkdir -p "$1/tls"
    openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=bench-ca \
        -keyout "$1/tls/ca.key" -out "$1/tls/ca.pem" 2>/dev/null
    for name in server gate operator; do
        openssl req -x509 -CA "$1/tls/ca.pem" -CAkey "$1/tls/ca.key" -newkey ed25519 -nodes -days 30 \
            -subj "/CN=$name" -addext "subjectAltName=DNS:$name.bench,IP:127.0.0.1" \
            -addext basicConstraints=critical,CA:FALSE \
            -keyout "$1/tls/$name.key" -out "$1/tls/$name.pem" 2>/dev/null
    done
}

as() { # DIR NAME
    [[ -n ${TLS:-} ]] || return 0
    export ASSENT_CA=$1/tls/ca.pem ASSENT_CERT=$1/tls/$2.pem ASSENT_KEY=$1/tls/$2.key
}

up() { # DIR FACES
    mkdir -p "$1"/{first,second}
    if [[ ! -f $1/root.key ]]; then
        "$assent" keys init "$1/root.key" >"$1/keys"
        local photos person
        for person in "$2"/*/; do
            mapfile -t photos < <(find "$person" -name '*.jpg' | sort)
            person=$(basename "$person")
            mkdir -p "$1/first/$person"
            [[ ${#photos[@]} -lt 1 ]] || cp "${photos[0]}" "$1/first/$person/"
            [[ ${#photos[@]} -lt 2 ]] || cp "${photos[1]}" "$1/second/$person.jpg"
        done
        # Many callers play one gate here: none of their frames is a newer one of another's.
        sed -e 's/^duplicates = "refuse"/duplicates = "flag"/' \
            -e 's/^comparison = /newest_frame_wins = false\n&/' \
            "$root/docs/example-policy.toml" >"$1/policy.toml"
    fi
    cat >"$1/assent.toml" <<END
data_dir = "$1/data"
root_key = "$1/root.key"
[listen]
grpc = "127.0.0.1:$port"
metrics = "127.0.0.1:$((port + 1))"
END
    local plain=(--plaintext)
    if [[ -n ${TLS:-} ]]; then
        [[ -d $1/tls ]] || certificates "$1"
        plain=()
        cat >>"$1/assent.toml" <<END
[tls]
certificate = "$1/tls/server.pem"
key = "$1/tls/server.key"
client_ca = "$1/tls/ca.pem"
[[callers]]
name = "gate"
certificate = "gate.bench"
role = "gate"
gates = ["north-gate-1"]
embeddings = true
[[callers]]
name = "operator"
certificate = "operator.bench"
role = "operator"
END
        as "$1" operator
    fi
    [[ -z ${EXTRA:-} ]] || cat "$EXTRA" >>"$1/assent.toml"
    "$assent" serve "${plain[@]}" --config "$1/assent.toml" --models-dir "$root/models" >>"$1/log" 2>&1 &
    echo $! >"$1/pid"
    until "$assent" status >/dev/null 2>&1; do
        kill -0 "$(cat "$1/pid")" || { tail -n 5 "$1/log" >&2; exit 70; }
        sleep 0.1
    done
    if [[ ! -f $1/enrolled ]]; then
        "$assent" apply "$1/policy.toml"
        # A photo in which no face is found is refused, and the rest is enrolled.
        "$assent" enroll --from "$1/first" "${consent[@]}" >"$1/enrolling" || [[ $? -eq 1 ]]
        mv "$1/enrolling" "$1/enrolled"
        tail -n 1 "$1/enrolled"
    fi
    "$assent" status
}

# Answered requests a second of so many callers.
peak() { # DIR CALLERS ARGUMENTS
    local arguments=("${@:3}")
    [[ $# -gt 2 ]] || arguments=("$1/second")
    "$assent" bench "${gate[@]}" --callers "$2" --seconds "$each" --json "${arguments[@]}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["steps"][0]["kinds"]["verify"]["per_second"])'
}

overload() { # DIR
    local peak
    peak=$(peak "$1" 16)
    echo "16 callers, closed loop: $peak a second"
    at() { python3 -c "print(round($peak * $1, 1))"; }
    echo "five times as much, 60 s, one request in 200 enrols and one revokes"
    "$assent" bench "${gate[@]}" "${consent[@]}" --rate "$(at 5)" --seconds 60 --connections 16 \
        --enrol 0.005 --revoke 0.005 "$1/second"
    echo "and then half as much, at once"
    "$assent" bench "${gate[@]}" --rate "$(at 0.5)" --warm-up 0 --seconds 2 "$1/second"
    "$assent" bench "${gate[@]}" --rate "$(at 0.5)" --warm-up 0 --seconds 10 "$1/second"
}

soak() { # DIR
    local seconds=${SECONDS_EACH:-1800}
    memory "$1"
    "$assent" bench "${gate[@]}" "${consent[@]}" --callers 4 --seconds "$seconds" \
        --enrol 0.01 --revoke 0.01 "$1/second" &
    local bench=$!
    while kill -0 "$bench" 2>/dev/null; do
        sleep 60
        echo "$SECONDS s: $(memory "$1")"
    done
    wait "$bench"
    "$assent" status
}

fill() { # DIR N
    local goal
    have() { "$assent" status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["subjects"])'; }
    goal=$(($(have) + $2))
    while [[ $(have) -lt $goal ]]; do
        "$assent" bench "${gate[@]}" "${consent[@]}" --probes embeddings --callers 256 \
            --enrol 1 --keep --warm-up 0 --seconds 5 --seed "$RANDOM" | sed -n 3p
    done
    "$assent" status
}

run() { # DIR WHAT
    as "$1" gate
    case $2 in
    photos | crops)
        "$assent" bench "${gate[@]}" --probes "$2" --callers 1,4,16 --seconds "$each" "$1/second"
        ;;
    embeddings)
        local rate
        "$assent" bench "${gate[@]}" --probes embeddings --callers 1,16,64 --seconds "$each"
        rate=$(peak "$1" 64 --probes embeddings)
        rate=$(python3 -c "print(round($rate * 0.7))")
        echo "open loop at 70 % of what 64 callers get"
        "$assent" bench "${gate[@]}" --probes embeddings --rate "$rate" --seconds "$each"
        ;;
    overload) overload "$1" ;;
    soak) soak "$1" ;;
    *) usage ;;
    esac
}

memory() { # DIR
    awk '/^(VmRSS|VmHWM)/ { printf "%s %d MB  ", $1, $2 / 1024 } END { print "" }' \
        "/proc/$(cat "$1/pid")/status"
}

down() { # DIR
    kill "$(cat "$1/pid")"
    while kill -0 "$(cat "$1/pid")" 2>/dev/null; do sleep 0.1; done
}

[[ $# -ge 2 ]] || usage
[[ -x $assent ]] || { echo "$0: no $assent: cargo build --release" >&2; exit 69; }
mkdir -p "$2"
dir=$(cd "$2" && pwd)
case $1 in
up) [[ $# -eq 3 ]] || usage; up "$dir" "$3" ;;
run) [[ $# -eq 3 ]] || usage; run "$dir" "$3" ;;
fill) [[ $# -eq 3 ]] || usage; fill "$dir" "$3" ;;
memory) memory "$dir" ;;
down) down "$dir" ;;
*) usage ;;
esac
