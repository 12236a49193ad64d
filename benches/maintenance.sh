#!/usr/bin/env bash
# What one maintenance answer costs, side by side with nginx's `if (-f …) { return 503; }` and a page of the same bytes.
# Both have one worker on the first core, the load (wrk) has the second; they take turns in every round. Counted is
# processor time, user and kernel, of all threads, so that what else runs on the machine matters little.
#   usage: benches/maintenance.sh FLAGSTONE_BINARY [rounds=5] [seconds=4] [connections=64]
# Needs Debian's nginx-light, wrk, curl and bc. Every process started here is stopped here.
set -euo pipefail

bin=$(readlink -f "${1:?usage: maintenance.sh FLAGSTONE_BINARY [rounds] [seconds] [connections]}")
rounds=${2:-5} seconds=${3:-4} connections=${4:-64}
for tool in nginx wrk curl bc taskset; do
    command -v $tool >/dev/null || { echo "maintenance.sh: needs $tool" >&2; exit 2; }
done

dir=$(mktemp -d)
flagstone_port=19021 nginx_port=19022 flagstone=
stop() {
    [[ -z $flagstone ]] || kill "$flagstone" 2>/dev/null || true
    [[ ! -s $dir/nginx.pid ]] || kill "$(cat "$dir/nginx.pid")" 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT

mkdir -p "$dir/state" "$dir/page"
chmod 755 "$dir" "$dir/page"
cat >"$dir/state/maintenance.flag" <<'FLAG'
reason = "Database upgrade"
until = "2099-01-31T22:00:00Z"
FLAG
cat >"$dir/flagstone.toml" <<TOML
[server]
workers = 1
state_dir = "$dir/state"
[admin]
listen = ""
[log]
access = "$dir/flagstone.log"
[[listener]]
address = "127.0.0.1:$flagstone_port"
[[route]]
name = "all"
upstream = "app"
[upstream.app]
endpoints = ["127.0.0.1:9"]
TOML
# Debian's own settings, an access log that is written in batches as Flagstone's is, and the same two header fields.
cat >"$dir/nginx.conf" <<CONF
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.err;
events { worker_connections 8192; }
http {
  types { text/html html; }
  sendfile on;
  tcp_nopush on;
  access_log $dir/nginx.log combined buffer=64k flush=1s;
  keepalive_requests 1000000000;
  server {
    listen 127.0.0.1:$nginx_port backlog=4096;
    error_page 503 /maintenance.html;
    location = /maintenance.html {
      internal;
      root $dir/page;
      add_header Retry-After 300 always;
      add_header Cache-Control no-store always;
    }
    location / {
      if (-f $dir/state/maintenance.flag) { return 503; }
      proxy_pass http://127.0.0.1:9;
    }
  }
}
CONF

taskset -c 0 "$bin" run -c "$dir/flagstone.toml" >"$dir/flagstone.out" 2>&1 &
flagstone=$!
page() { curl -s -H 'Accept: text/html' "http://127.0.0.1:$1/"; }
for _ in $(seq 100); do
    page $flagstone_port >"$dir/page/maintenance.html" && break
    sleep 0.1
done
taskset -c 0 nginx -c "$dir/nginx.conf" 2>"$dir/nginx.out" || { cat "$dir/nginx.out" >&2; exit 1; }
for _ in $(seq 100); do
    page $nginx_port >"$dir/nginx.html" && break
    sleep 0.1
done
cmp "$dir/page/maintenance.html" "$dir/nginx.html" || { echo "maintenance.sh: the pages differ" >&2; exit 1; }
worker=$(pgrep -P "$(cat "$dir/nginx.pid")")
echo "page: $(wc -c <"$dir/nginx.html") bytes, $connections connections, $rounds rounds of $seconds s"

hz=$(getconf CLK_TCK)
ticks() { awk '{print $14 " " $15}' "/proc/$1/stat"; }
one() { # NAME PORT PID; prints NAME µs-per-request user-µs kernel-µs requests
    local before after requests out
    before=$(ticks "$3")
    out=$(taskset -c 1 wrk -t1 -c"$connections" -d"${seconds}s" -H 'Accept: text/html' "http://127.0.0.1:$2/")
    after=$(ticks "$3")
    requests=$(awk '/requests in/{print $1}' <<<"$out")
    # Each answer is a 503, or something else was measured.
    [[ $(awk '/Non-2xx/{print $NF}' <<<"$out") == "$requests" ]] || { echo "$out" >&2; exit 1; }
    awk -v name="$1" -v hz="$hz" -v n="$requests" -v b="$before" -v a="$after" 'BEGIN {
        split(b, x); split(a, y); u = (y[1] - x[1]) * 1e6 / hz / n; k = (y[2] - x[2]) * 1e6 / hz / n
        printf "%-10s %6.2f us per answer (%.2f user, %.2f kernel), %d answers\n", name, u + k, u, k, n }'
}
for _ in $(seq "$rounds"); do
    one flagstone $flagstone_port $flagstone
    one nginx $nginx_port "$worker"
done | tee "$dir/rows"

median() { awk -v name="$1" '$1 == name {print $2}' "$dir/rows" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
f=$(median flagstone) n=$(median nginx)
echo "median: flagstone $f us, nginx $n us, ratio $(bc <<<"scale=2; $f / $n")"
