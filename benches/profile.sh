#!/usr/bin/env bash
# Instructions per request, in all and by function: what a change of the request path is judged by. Unlike time, they do
# not depend on what else the machine does.
#   usage: benches/profile.sh [--functions N] [--requests N] [--h2] [--caches] [BINARY]
# Without a binary, target/profile is built: the release profile with line tables. --h2 asks by HTTP/2 over TLS, 16 streams on
# each of 16 connections. --caches simulates a processor's caches and tells of the lines that were not in them.
# Needs Debian's nginx-light, nghttp2-client, openssl and valgrind. Kernel time is not counted; `strace -c` counts its calls.
set -euo pipefail
cd "$(dirname "$0")/.."
functions=25 requests=20000 binary= caches=() ask=(--h1 -c 64)
while [ $# -gt 0 ]; do
    case $1 in
        --functions) functions=$2; shift 2 ;;
        --requests) requests=$2; shift 2 ;;
        --h2) ask=(-c 16 -m 16); shift ;;
        # 32 KiB for instructions and for data, 1 MiB behind them.
        --caches) caches=(--cache-sim=yes --I1=32768,8,64 --D1=32768,8,64 --LL=1048576,16,64); shift ;;
        -*) sed -n '2,7s/^# \?//p' "$0" >&2; exit 2 ;;
        *) binary=$(readlink -f "$1"); shift ;;
    esac
done
for tool in nginx h2load valgrind callgrind_annotate; do
    command -v "$tool" >/dev/null || { echo "profile.sh: needs $tool" >&2; exit 2; }
done
if [ -z "$binary" ]; then
    # Not by the profile's settings: with others its functions have other names, and the counts of benches/pgo/ are nobody's.
    RUSTFLAGS='-C debuginfo=line-tables-only -C strip=none' cargo build --release --target-dir target/profile --bin flagstone
    binary=target/profile/release/flagstone
fi
dir=$(mktemp -d) pid=
stop() {
    [ -n "$pid" ] && kill "$pid" 2>/dev/null
    [ -s "$dir/app.pid" ] && kill "$(cat "$dir/app.pid")" 2>/dev/null
    rm -rf "$dir"
}
trap stop EXIT
app=${PROFILE_PORT:-19100} port=$((${PROFILE_PORT:-19100} + 1)) url=http tls=
if [ "${ask[0]}" != --h1 ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 30 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
    url=https tls="tls = { certificates = [{ cert = \"$dir/cert.pem\", key = \"$dir/key.pem\" }] }"
fi
cat >"$dir/app.conf" <<N
worker_processes 1; pid $dir/app.pid; error_log $dir/app.err; daemon on; events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; default_type text/plain;
  server { listen 127.0.0.1:$app; location / { return 200 "$(head -c 1024 /dev/zero | tr '\0' x)"; } } }
N
# As in peers.sh: everything on.
cat >"$dir/flagstone.toml" <<N
[server]
workers = 1
state_dir = "$dir/state"
[admin]
listen = ""
[log]
access = "$dir/access.log"
[[listener]]
address = "127.0.0.1:$port"
$tls
[[route]]
name = "all"
upstream = "b"
limits = ["per_ip"]
[upstream.b]
endpoints = ["127.0.0.1:$app"]
[limit.per_ip]
rate = "1000000/1s"
burst = 100000
N
nginx -c "$dir/app.conf" 2>/dev/null
valgrind --tool=callgrind "${caches[@]}" --instr-atstart=no --callgrind-out-file="$dir/out" \
    "$binary" run -c "$dir/flagstone.toml" >"$dir/flagstone.out" 2>&1 & pid=$!
for _ in $(seq 300); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
# Pools, buffers and the limit's table are made first.
h2load "${ask[@]}" -n 2000 "$url://127.0.0.1:$port/" >/dev/null
callgrind_control -i on "$pid" >/dev/null
h2load "${ask[@]}" -n "$requests" "$url://127.0.0.1:$port/" >/dev/null
callgrind_control -i off "$pid" >/dev/null
kill "$pid"; wait "$pid" || true; pid=
# Instructions, reads and writes of data; misses of instructions, reads and writes in the first cache, then in both.
sed -n 's/^\(summary\|totals\): //p' "$dir/out" | tail -1 | awk -v n="$requests" '
    { printf "%.0f instructions per request\n", $1 / n }
    NF >= 9 { printf "lines missed in the first cache: %.0f of instructions, %.0f read, %.0f written; in both: %.0f, %.0f, %.0f\n",
        $4 / n, $5 / n, $6 / n, $7 / n, $8 / n, $9 / n }'
callgrind_annotate --threshold=99 "$dir/out" | awk -v n="$requests" -v rows="$functions" '
    /%\)/ && !/PROGRAM TOTALS/ && shown < rows {
        gsub(",", "", $1); share = $0; sub(/^[^(]*\(/, "", share); sub(/%\).*/, "", share)
        name = $0; sub(/^[^)]*\) +/, "", name); sub(/^[^:]*:/, "", name); sub(/ \[[^\]]*\]$/, "", name)
        printf "%7.0f %5.1f%% %s\n", $1 / n, share, substr(name, 1, 130); shown++ }'
[ -z "${KEEP:-}" ] || cp "$dir/out" "$KEEP"
