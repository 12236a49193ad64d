#!/usr/bin/env bash
# Flagstone beside nginx, HAProxy and a bare byte relay: every row of docs/performance.md in one run.
#   usage: benches/peers.sh [--only ROW[,ROW]] [--rounds N] [--seconds N] [--keep] [--alone] [BINARY]
#   rows:  kept p99 large h2 handshakes close maintenance websocket idle workers routes
# --alone leaves the others out: a load for Flagstone, nothing to compare it with. Without a binary, target/release is built. Five rounds of three seconds take about ten minutes, one row about one.
#
# The proxy has core 0, load and app share core 1. All proxies of a row take turns in every round, so that whatever else
# the machine does falls on each of them; the ratios are those of the medians. Processor time is what the scheduler
# counted for all threads of the proxy, user and kernel. The configurations are written below as they are; --keep leaves
# them, and what each round said, in a folder whose name is printed.
# Needs Debian's nginx-light haproxy wrk nghttp2-client openssl. Stops what it started.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=kept,p99,large,h2,handshakes,close,maintenance,websocket,idle,workers,routes rounds=5 seconds=3 keep=no alone=no binary=
usage() { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --only) rows=${2:?}; shift 2 ;;
        --rounds) rounds=${2:?}; shift 2 ;;
        --seconds) seconds=${2:?}; shift 2 ;;
        --keep) keep=yes; shift ;;
        --alone) alone=yes; shift ;;
        -*) usage ;;
        *) binary=$(readlink -f "$1"); shift ;;
    esac
done
for row in ${rows//,/ }; do
    case ,kept,p99,large,h2,handshakes,close,maintenance,websocket,idle,workers,routes, in
        *",$row,"*) ;;
        *) echo "peers.sh: there is no row \"$row\"" >&2; usage ;;
    esac
done
peers=(haproxy); [ $alone = no ] || peers=()
for tool in nginx "${peers[@]}" wrk h2load openssl taskset curl; do
    command -v "$tool" >/dev/null || { echo "peers.sh: needs $tool" >&2; exit 2; }
done
ulimit -n "$(ulimit -Hn)"
if [ -z "$binary" ]; then
    cargo build --release --bin flagstone --example load
    binary=${CARGO_TARGET_DIR:-target}/release/flagstone
    binary=$(readlink -f "$binary")
fi
load=$(dirname "$binary")/examples/load
[ -x "$load" ] || { cargo build --release --example load; load=${CARGO_TARGET_DIR:-target}/release/examples/load; }

# --- What is started is stopped --------------------------------------------------------------------------------------
dir=$(mktemp -d) started=() masters=()
chmod 755 "$dir" # nginx's workers read the page and the large file
mkdir "$dir/etc" # Watched by Flagstone: nobody is to write logs there.
stop() {
    local it
    for it in "${masters[@]}"; do [ -s "$dir/$it.pid" ] && started+=("$(cat "$dir/$it.pid")"); done
    for it in "${started[@]}"; do kill "$it" 2>/dev/null || true; done
    # Until they have ended: one that counts what it runs writes that down.
    wait 2>/dev/null || true
    if [ "$keep" = yes ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap stop EXIT
on() { # CORE NAME COMMAND…: runs it there; its id is in $pid
    local core=$1 name=$2; shift 2
    taskset -c "$core" "$@" >"$dir/$name.out" 2>&1 & pid=$!
    started+=("$pid")
}
nginx_on() { # CORE NAME
    taskset -c "$1" nginx -c "$dir/$2.conf" 2>"$dir/$2.out" || { cat "$dir/$2.out" >&2; exit 1; }
    masters+=("$2")
    for _ in $(seq 50); do [ -s "$dir/$2.pid" ] && break; sleep 0.1; done
    pid=$(cat "$dir/$2.pid")
}
answers() { # URL [STATUS]
    local status
    for _ in $(seq 100); do
        status=$(curl -sk --http1.1 -o /dev/null -w '%{http_code}' "$1" || true)
        [ "$status" = "${2:-200}" ] && return 0
        sleep 0.1
    done
    echo "peers.sh: $1 answers $status, not ${2:-200}" >&2
    tail -n 5 "$dir"/*.out >&2
    exit 1
}

# --- Counting --------------------------------------------------------------------------------------------------------
family() { echo "$1"; pgrep -P "$1" || true; }
cpu_ns() { # PID: processor time of it and its children, all threads
    local one total=0
    for one in $(family "$1"); do
        total=$((total + $(cat /proc/"$one"/task/*/schedstat 2>/dev/null | awk '{t += $1} END {printf "%.0f", t}')))
    done
    echo "$total"
}
resident_kib() { awk '/VmRSS/{print $2}' "/proc/$1/status"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (a > 0 && b > 0) printf "%.2f", a / b; else printf "-"}'; }
per() { awk -v a="$1" -v b="$2" -v f="${3:-1}" 'BEGIN {if (b > 0) printf "%.2f", a * f / b; else printf "0"}'; }
note() { echo "$2" >>"$dir/$1.values"; printf '  %-28s %s\n' "$1" "$2"; }
median() { sort -n "$dir/$1.values" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
wanted() { case ,$rows, in *",$1,"*) return 0 ;; *) return 1 ;; esac; }
: >"$dir/table"
compare() { # ROW UNIT OURS THEIRS at-most|at-least TARGET
    [ $alone = no ] || return 0
    local ours theirs r verdict=short
    ours=$(median "$3") theirs=$(median "$4") r=$(ratio "$ours" "$theirs")
    if [ "$r" = - ]; then verdict="no value"
    elif [ "$5" = at-most ]; then awk -v r="$r" -v t="$6" 'BEGIN {exit !(r <= t)}' && verdict=met
    else awk -v r="$r" -v t="$6" 'BEGIN {exit !(r >= t)}' && verdict=met; fi
    printf '%s|%s|%s|%s|%s|%s %s|%s\n' "$1" "${4#*.}" "$ours $2" "$theirs $2" "$r" "$5" "$6" "$verdict" >>"$dir/table"
}

# --- The app, and how each proxy is configured -----------------------------------------------------------------------
head -c 10485760 /dev/zero >"$dir/10m"
head -c 8192 /dev/zero | tr '\0' m >"$dir/maintenance.html"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/site.key" -out "$dir/site.pem" 2>/dev/null
cat "$dir/site.pem" "$dir/site.key" >"$dir/both.pem"
cat >"$dir/app.conf" <<N
worker_processes 1; pid $dir/app.pid; error_log $dir/app.err; daemon on; events { worker_connections 16384; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; default_type text/plain; sendfile on;
  server { listen 127.0.0.1:19000 backlog=4096;
    location / { return 200 "$(head -c 1024 /dev/zero | tr '\0' x)"; }
    location = /10m { root $dir; } } }
N
# Access log, limit_req, the flag test, passive health, forwarding fields.
cat >"$dir/nginx.conf" <<N
worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.err; daemon on; events { worker_connections 16384; }
http { access_log $dir/nginx.access combined buffer=64k flush=1s; keepalive_requests 1000000000; keepalive_timeout 600s;
  limit_req_zone \$binary_remote_addr zone=z:10m rate=1000000r/s;
  ssl_certificate $dir/site.pem; ssl_certificate_key $dir/site.key; ssl_protocols TLSv1.3;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host;
  proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for; proxy_set_header X-Real-IP \$remote_addr;
  proxy_set_header X-Forwarded-Proto \$scheme; proxy_set_header X-Request-Id \$request_id;
  proxy_max_temp_file_size 0;
  upstream b { server 127.0.0.1:19000 max_fails=5 fail_timeout=30s; keepalive 512; keepalive_requests 1000000000; }
  upstream e { server 127.0.0.1:19009; }
  server { listen 127.0.0.1:19001 backlog=4096; listen 127.0.0.1:19011 ssl http2 backlog=4096;
    location / { if (-f $dir/no.flag) { return 503; } limit_req zone=z burst=100000 nodelay; proxy_pass http://b; }
    location = /ws { proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade;
      proxy_read_timeout 1h; proxy_pass http://e; } }
  server { listen 127.0.0.1:19021 backlog=4096;
    error_page 503 /maintenance.html;
    location = /maintenance.html { root $dir; default_type text/html; add_header Retry-After 300 always; internal; }
    location / { if (-f $dir/maintenance.html) { return 503; } proxy_pass http://b; } } }
N
# A stick table for the limit, passive and active health, forwarding fields; once without and once with a log.
haproxy_conf() { # NAME PLAIN TLS LOG
    cat >"$dir/$1.cfg" <<N
global
  nbthread 1
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.3
  $4
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  http-reuse always
  option forwardfor
  ${4:+log global}
  ${4:+option httplog}
frontend f
  bind 127.0.0.1:$2
  bind 127.0.0.1:$3 ssl crt $dir/both.pem alpn h2,http/1.1
  stick-table type ip size 100k expire 30s store http_req_rate(10s)
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000000 }
  http-request set-header X-Forwarded-Proto http
  default_backend b
backend b
  default-server observe layer7 error-limit 5 on-error mark-down check inter 2s
  server s 127.0.0.1:19000
N
}
haproxy_conf haproxy 19002 19012 ""
haproxy_conf haproxy-log 19004 19014 "log stdout format raw local0"
# Access log, limit, breaker (on by default), maintenance, metrics, forwarding fields.
flagstone_conf() { # NAME PORT TLS_PORT WORKERS [STATE]
    cat <<N
[server]
workers = $4
state_dir = "${5:-$dir/$1.state}"
[admin]
listen = ""
[log]
access = "$dir/$1.access"
[bounds]
max_body = "0"
[[listener]]
address = "127.0.0.1:$2"
[[listener]]
name = "tls"
address = "127.0.0.1:$3"
[listener.tls]
certificates = [{ cert = "$dir/site.pem", key = "$dir/site.key" }]
min_version = "1.3"
[[route]]
name = "all"
upstream = "b"
limits = ["per_ip"]
[[route]]
name = "streams"
path = ["=/ws"]
upstream = "e"
[upstream.b]
endpoints = ["127.0.0.1:19000"]
max_idle = 512
[upstream.e]
endpoints = ["127.0.0.1:19009"]
[limit.per_ip]
rate = "1000000/1s"
burst = 100000
N
}
flagstone_conf flagstone 19003 19013 1 >"$dir/etc/flagstone.toml"
nginx_on 1 app
nginx_pid='' haproxy_pid='' haproxy_log_pid='' relay_pid='' others=
if [ $alone = no ]; then
    nginx_on 0 nginx; nginx_pid=$pid
    on 0 haproxy haproxy -db -f "$dir/haproxy.cfg"; haproxy_pid=$pid
    on 0 haproxy-log haproxy -db -f "$dir/haproxy-log.cfg"; haproxy_log_pid=$pid
    on 0 relay "$load" relay 127.0.0.1:19005 127.0.0.1:19000; relay_pid=$pid
    for port in 19001 19002 19004 19005; do answers "http://127.0.0.1:$port/"; done
    others="; nginx $(nginx -v 2>&1 | sed 's/.*\///'), HAProxy $(haproxy -v | awk 'NR==1{print $3}')"
fi
on 0 flagstone "$binary" run -c "$dir/etc/flagstone.toml"; flagstone_pid=$pid
for port in 19000 19003; do answers "http://127.0.0.1:$port/"; done
echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg);" \
    "$rounds rounds of $seconds s$others"

# Whether a value is asked for.
plays() { [ $alone = no ] || case $1 in *.flagstone) ;; *) false ;; esac; }

# --- The rows --------------------------------------------------------------------------------------------------------
with_wrk() { # VALUE PID FACTOR WRK_ARGUMENT…: processor time per request, times FACTOR (1 = µs)
    plays "$1" || return 0
    local value=$1 process=$2 factor=$3 before after out requests; shift 3
    before=$(cpu_ns "$process")
    out=$(taskset -c "${core:-1}" wrk -t1 -d"${seconds}s" "$@")
    after=$(cpu_ns "$process")
    grep 'Socket errors' <<<"$out" >&2 || true
    case $value in maintenance.*) ;; *) grep 'Non-2xx' <<<"$out" >&2 && exit 1 ;; esac
    requests=$(awk '/requests in/{print $1}' <<<"$out")
    note "$value" "$(per $((after - before)) "$requests" "$(awk -v f="$factor" 'BEGIN {print f / 1000}')")"
    rate=$(awk '/Requests\/sec/{print $2}' <<<"$out")
}
row() { echo "$1: $2"; }

top=0 rate=
kept() {
    row kept "1 KiB answers, 64 kept connections: µs of processor per request"
    for _ in $(seq "$rounds"); do
        with_wrk kept.nginx "$nginx_pid" 1 -c64 http://127.0.0.1:19001/; [ -z "$rate" ] || echo "$rate" >>"$dir/top.values"
        with_wrk kept.haproxy "$haproxy_pid" 1 -c64 http://127.0.0.1:19002/
        with_wrk kept.haproxy-with-log "$haproxy_log_pid" 1 -c64 http://127.0.0.1:19004/
        with_wrk kept.relay "$relay_pid" 1 -c64 http://127.0.0.1:19005/
        with_wrk kept.flagstone "$flagstone_pid" 1 -c64 http://127.0.0.1:19003/
    done
    compare "1 KiB, 64 kept connections" µs kept.flagstone kept.nginx at-most 0.85
    compare "1 KiB, 64 kept connections" µs kept.flagstone kept.haproxy at-most 1.00
    compare "1 KiB, 64 kept connections" µs kept.flagstone kept.haproxy-with-log at-most 1.00
    compare "1 KiB, 64 kept connections" µs kept.flagstone kept.relay at-most 1.30
}

p99() {
    [ $alone = no ] || { row p99 "not measured: the rate is nginx's"; return; }
    if [ ! -s "$dir/top.values" ]; then
        for _ in 1 2 3; do
            taskset -c 1 wrk -t1 -c64 -d"${seconds}s" http://127.0.0.1:19001/ | awk '/Requests\/sec/{print $2}' >>"$dir/top.values"
        done
    fi
    top=$(median top); local pace; pace=$(per "$top" 1 0.7)
    row p99 "at $pace requests a second, 70 % of nginx's top: 99th percentile in µs"
    at_rate() { plays "$1" || return 0; note "$1" "$(taskset -c 1 "$load" http "127.0.0.1:$2" --rate "$pace" --seconds "$seconds" | tr ' ' '\n' | sed -n 's/p99_us=//p')"; }
    for _ in $(seq "$rounds"); do at_rate p99.nginx 19001; at_rate p99.haproxy 19002; at_rate p99.flagstone 19003; done
    compare "p99 at 70 % of nginx's top rate" µs p99.flagstone p99.nginx at-most 1.0
}

large() {
    row large "10 MiB bodies, 8 connections: ms of processor per GiB"
    local f=0.1024 # 102.4 bodies are a GiB, and 1000 µs a ms
    for _ in $(seq "$rounds"); do
        with_wrk large.nginx "$nginx_pid" $f -c8 http://127.0.0.1:19001/10m
        with_wrk large.haproxy "$haproxy_pid" $f -c8 http://127.0.0.1:19002/10m
        with_wrk large.flagstone "$flagstone_pid" $f -c8 http://127.0.0.1:19003/10m
    done
    compare "10 MiB bodies" ms/GiB large.flagstone large.haproxy at-most 0.75
    compare "10 MiB bodies" ms/GiB large.flagstone large.nginx at-most 0.75
}

h2() {
    row h2 "HTTP/2 over TLS, 16 connections of 16 streams: requests a second"
    by_h2load() { # VALUE PORT
        plays "$1" || return 0
        local out; out=$(taskset -c 1 h2load -c16 -m16 -t1 -D"$seconds" --warm-up-time=0 "https://127.0.0.1:$2/")
        grep -q ' 0 failed, 0 errored' <<<"$out" || grep '^requests:' <<<"$out" >&2
        note "$1" "$(sed -n 's/.*, \([0-9.]*\) req\/s.*/\1/p' <<<"$out")"
    }
    for _ in $(seq "$rounds"); do
        by_h2load h2.nginx 19011; by_h2load h2.haproxy 19012; by_h2load h2.haproxy-with-log 19014; by_h2load h2.flagstone 19013
    done
    compare "HTTP/2 over TLS, 16×16" req/s h2.flagstone h2.haproxy at-least 1.0
    compare "HTTP/2 over TLS, 16×16" req/s h2.flagstone h2.haproxy-with-log at-least 1.0
    compare "HTTP/2 over TLS, 16×16" req/s h2.flagstone h2.nginx at-least 1.0
}

handshakes() {
    row handshakes "full handshakes of TLS 1.3 (P-256, X25519) per second of one core"
    shakes() { # VALUE PORT PID [ARGUMENT]
        plays "$1" || return 0
        local before after count; before=$(cpu_ns "$3")
        count=$(taskset -c 1 "$load" handshakes "127.0.0.1:$2" --seconds "$seconds" ${4:-} | sed -n 's/handshakes=//p')
        after=$(cpu_ns "$3")
        note "$1" "$(per "$count" $((after - before)) 1000000000)"
    }
    for _ in $(seq "$rounds"); do
        shakes handshakes.nginx 19011 "$nginx_pid"
        shakes handshakes.haproxy 19012 "$haproxy_pid"
        shakes handshakes.flagstone 19013 "$flagstone_pid"
        shakes handshakes.with-mlkem 19013 "$flagstone_pid" --post-quantum
    done
    compare "TLS 1.3 handshakes" /core-s handshakes.flagstone handshakes.nginx at-least 1.0
}

close() {
    row close "a connection per request, 64 at a time: µs of processor per request"
    for _ in $(seq "$rounds"); do
        with_wrk close.nginx "$nginx_pid" 1 -c64 -H 'Connection: close' http://127.0.0.1:19001/
        with_wrk close.flagstone "$flagstone_pid" 1 -c64 -H 'Connection: close' http://127.0.0.1:19003/
    done
    compare "connection per request" µs close.flagstone close.nginx at-most 1.0
}

maintenance() {
    row maintenance "the maintenance page, 8 KiB, 64 kept connections: µs of processor per request"
    # A page of a folder, the same bytes as nginx's.
    mkdir -p "$dir/page" "$dir/down.state"; cp "$dir/maintenance.html" "$dir/page/index.html"; : >"$dir/down.state/maintenance.flag"
    { flagstone_conf down 19023 19033 1 "$dir/down.state"; printf '[maintenance]\npage = "%s"\n' "$dir/page"; } >"$dir/etc/down.toml"
    on 0 down "$binary" run -c "$dir/etc/down.toml"; local down=$pid
    answers http://127.0.0.1:19023/ 503
    plays maintenance.nginx && answers http://127.0.0.1:19021/ 503
    for _ in $(seq "$rounds"); do
        with_wrk maintenance.nginx "$nginx_pid" 1 -c64 -H 'Accept: text/html' http://127.0.0.1:19021/
        with_wrk maintenance.flagstone "$down" 1 -c64 -H 'Accept: text/html' http://127.0.0.1:19023/
    done
    kill "$down"
    compare "maintenance page" µs maintenance.flagstone maintenance.nginx at-most 0.5
}

websocket() {
    row websocket "WebSocket echo, 1,000 streams: µs of processor per message there and back"
    on 1 echo "$load" echo 127.0.0.1:19009; local echo=$pid; sleep 0.3
    echoes() { # VALUE PORT PID
        plays "$1" || return 0
        # Connecting is not counted: the clock starts when the load says that it is ready.
        local before after out; out=$dir/echoes.out; : >"$out"
        taskset -c 1 "$load" streams "127.0.0.1:$2" --seconds "$seconds" >"$out" & local client=$!
        for _ in $(seq 100); do grep -q ready "$out" && break; sleep 0.05; done
        before=$(cpu_ns "$3"); wait "$client" || true; after=$(cpu_ns "$3")
        note "$1" "$(per $((after - before)) "$(sed -n 's/messages=//p' "$out")" 0.001)"
    }
    for _ in $(seq "$rounds"); do echoes websocket.nginx 19001 "$nginx_pid"; echoes websocket.flagstone 19003 "$flagstone_pid"; done
    kill "$echo"
    compare "WebSocket echo, 1,000 streams" µs websocket.flagstone websocket.nginx at-most 1.0
}

idle() {
    row idle "10,000 kept connections that have had one answer each: KiB of memory per connection"
    flagstone_conf idle 19043 19053 1 >"$dir/etc/idle.toml"
    on 0 idle "$binary" run -c "$dir/etc/idle.toml"; local process=$pid before
    answers http://127.0.0.1:19043/
    taskset -c 1 "$load" http 127.0.0.1:19043 --requests 20000 >/dev/null
    before=$(resident_kib "$process")
    mkfifo "$dir/hold"; : >"$dir/holder.out"
    taskset -c 1 "$load" idle 127.0.0.1:19043 <"$dir/hold" >"$dir/holder.out" & started+=("$!")
    exec 9>"$dir/hold"
    for _ in $(seq 1200); do grep -q ready "$dir/holder.out" && break; sleep 0.1; done
    grep -q ready "$dir/holder.out" || { echo "peers.sh: 10,000 connections did not come about" >&2; exit 1; }
    sleep 3 # a connection comes to rest after a second
    note idle.flagstone "$(per $(($(resident_kib "$process") - before)) 10000)"
    exec 9>&-; kill "$process"
    echo 16 >"$dir/idle.hyper.values"
    local mine; mine=$(median idle.flagstone)
    printf 'memory per idle kept connection|-|%s KiB|-|-|at-most 6 KiB|%s\n' "$mine" \
        "$(awk -v m="$mine" 'BEGIN {print (m <= 6) ? "met" : "short"}')" >>"$dir/table"
}

workers() {
    local n p few=no
    [ "$(nproc)" -ge 4 ] || few=yes
    for n in 1 2; do
        flagstone_conf "workers$n" $((19060 + n)) $((19070 + n)) "$n" >"$dir/etc/workers$n.toml"
        p=0; { [ "$n" = 2 ] || [ $few = yes ]; } && p=0,1
        on "$p" "workers$n" "$binary" run -c "$dir/etc/workers$n.toml"; local "pid$n=$pid"
        answers "http://127.0.0.1:$((19060 + n))/"
    done
    if [ $few = yes ]; then
        row workers "µs of processor per request with two workers, and with one; the rate is not measured: load and app need cores of their own, and this machine has $(nproc)"
        for _ in $(seq "$rounds"); do
            core=0,1 with_wrk workers.1 "$pid1" 1 -c64 http://127.0.0.1:19061/
            core=0,1 with_wrk workers.2 "$pid2" 1 -c64 http://127.0.0.1:19062/
        done
        # What twice the cores would do at this cost.
        compare "two workers over one, by cost" µs workers.2 workers.1 at-most 1.11
        return
    fi
    row workers "requests a second with two workers on two cores, and with one on one"
    for _ in $(seq "$rounds"); do
        for n in 1 2; do
            note "workers.$n" "$(taskset -c 2- wrk -t1 -c64 -d"${seconds}s" "http://127.0.0.1:$((19060 + n))/" | awk '/Requests\/sec/{print $2}')"
        done
    done
    compare "two workers over one" req/s workers.2 workers.1 at-least 1.8
}

routes() {
    row routes "one of 1,000 routes, 100 limits on it, beside one route with one limit: µs of processor per request"
    local n url names=
    for n in $(seq 100); do names+="\"l$n\","; done
    {
        flagstone_conf many 19083 19093 1 | sed '/^name = "all"/,/^limits/d; /^\[limit.per_ip\]/,$d' | sed '/^\[\[route\]\]$/{N;/\n\[\[route\]\]$/D}'
        echo '[limit.per_ip]'; echo 'rate = "1000000/1s"'; echo 'burst = 100000'
        for n in $(seq 100); do printf '[limit.l%s]\nrate = "1000000/1s"\nburst = 100000\n' "$n"; done
        for n in $(seq 998); do
            printf '[[route]]\nname = "r%s"\nhost = ["h%s.example.com"]\npath = ["/a%s/b"]\nupstream = "b"\nlimits = ["per_ip"]\n' "$n" $((n % 50)) "$n"
        done
        printf '[[route]]\nname = "all"\nupstream = "b"\nlimits = ["per_ip"]\n'
        printf '[[route]]\nname = "limited"\npath = ["/limited"]\nupstream = "b"\nlimits = [%s]\n' "${names%,}"
    } >"$dir/etc/many.toml"
    flagstone_conf one 19103 19113 1 >"$dir/etc/one.toml"
    local one many
    # Two processes of one binary differ by a tenth, by where their memory happens to lie: each round has new ones.
    for _ in $(seq "$rounds"); do
        on 0 one "$binary" run -c "$dir/etc/one.toml"; one=$pid
        on 0 many "$binary" run -c "$dir/etc/many.toml"; many=$pid
        for url in 19103/ 19083/ 19083/limited 19083/a500/b; do answers "http://127.0.0.1:$url"; done
        with_wrk routes.one "$one" 1 -c64 http://127.0.0.1:19103/
        with_wrk routes.thousand "$many" 1 -c64 -H 'Host: h0.example.com' http://127.0.0.1:19083/a500/b
        with_wrk routes.hundred-limits "$many" 1 -c64 http://127.0.0.1:19083/limited
        kill "$one" "$many"; wait "$one" "$many" || true
    done
    compare "one of 1,000 routes" µs routes.thousand routes.one at-most 1.05
    compare "100 limits on the route" µs routes.hundred-limits routes.one at-most 1.05
}

for row in ${rows//,/ }; do "$row"; done
[ $alone = no ] || exit 0
echo
{ echo "work|against|Flagstone|peer|ratio|target|"; cat "$dir/table"; } | column -t -s'|'
