#!/usr/bin/env bash
# Runs every test there is. See docs/testing.md.
#
# As root on Debian it first installs the programs that tests put before and behind Flagstone, and then no test may be
# left out. Elsewhere, tests that lack a program are left out and named.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    bc chromium chromium-driver curl dnsmasq-base goaccess haproxy nghttp2-client nginx-light openssl prometheus
    python3-pip python3-venv redis-server slowhttptest strace systemd valgrind wrk
)
# Node.js often comes from elsewhere, with an npm that Debian's does not go beside.
command -v npm >/dev/null || packages+=(npm)

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        # Not every failure is an absence, but whatever it is, apt-get says it better.
        if [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]]; then
            echo "$package"
        fi
    done
}

# Succeeds when everything is there in the end.
install_packages() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || return 1
    local missing
    mapfile -t missing < <(missing_packages)
    [[ ${#missing[@]} -eq 0 ]] && return 0
    [[ $(id -u) -eq 0 ]] || return 1
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    # A service that the package starts would only be in the way.
    local policy=/usr/sbin/policy-rc.d made_policy=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made_policy=yes
    fi
    local installed=yes
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null || installed=no
    [[ $made_policy == yes ]] && rm -f "$policy"
    [[ $installed == yes ]]
}

if install_packages; then
    export FLAGSTONE_TESTS_STRICT="${FLAGSTONE_TESTS_STRICT-1}"
else
    echo "some programs are not installed; tests that need them are left out" >&2
fi

left_out="${CARGO_TARGET_DIR:-target}/left-out.txt"
rm -f "$left_out"

# The documentation's tests are few and go first, so that the summary of the others comes last. Both always run.
failed=0
cargo test --quiet --doc || failed=1
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "$@" || failed=1
else
    cargo test --no-fail-fast --lib --bins --tests "$@" || failed=1
fi

if [[ -s $left_out ]]; then
    echo "left out ($(wc -l <"$left_out")):" >&2
    cat "$left_out" >&2
    [[ ${FLAGSTONE_TESTS_STRICT-} == 1 ]] && failed=1
fi
exit "$failed"
