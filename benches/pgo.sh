#!/usr/bin/env bash
# Optimises by what happens under load (https://doc.rust-lang.org/rustc/profile-guided-optimization.html): a build that counts
# serves the load of peers.sh, and its counts tell the compiler which way requests mostly go.
#   usage: benches/pgo.sh [dist|release]
#   dist     unless told otherwise: builds what is shipped, target/pgo/flagstone; `.ci/ship target/pgo/flagstone` holds it to its promises
#   release  renews the counts in benches/pgo/, by which `cargo build --release` goes
# Some minutes for each build, and half a minute of load. Needs what peers.sh needs but HAProxy, and `rustup component add llvm-tools`.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || { echo "pgo.sh: needs llvm-profdata: rustup component add llvm-tools" >&2; exit 2; }
folder=$PWD/target/pgo profile=${1:-dist}
case $profile in
    dist) target=$(uname -m)-unknown-linux-gnu flags='-C target-feature=+crt-static' how=(--target "$target") built=$target/dist ;;
    release) flags='' how=() built=release ;;
    *) sed -n '4,6s/^# *//p' "$0" >&2; exit 2 ;;
esac
build() { # FOLDER COUNTS
    RUSTC_WRAPPER=$PWD/benches/pgo/rustc.sh RUSTFLAGS=$flags FLAGSTONE_PGO=$2 \
        cargo build --locked --profile "$profile" --bin flagstone "${how[@]}" --target-dir "$folder/$1"
}
# cargo does not see that counts have changed.
rm -rf "$folder/counts" "$folder/using/$built"
build counting "$folder/counts/"
# What most sites serve, each for as long.
benches/peers.sh --alone --only kept,h2,close,large,maintenance,websocket --rounds 1 --seconds 5 \
    "$folder/counting/$built/flagstone" >/dev/null
if [ "$profile" = dist ]; then
    "$profdata" merge -o "$folder/dist.profdata" "$folder/counts"
    build using "$folder/dist.profdata"
    cp "$folder/using/$built/flagstone" "$folder/flagstone"
    ls -l "$folder/flagstone"
else
    # A paragraph for each function: its name, its hash, how many counters, the counters. What has not run so often under
    # load is start and administration; what never ran would make the file twenty times as large.
    "$profdata" merge --text -o "$folder/release.all" "$folder/counts"
    awk -v often=10000 'BEGIN { RS = ""; ORS = "\n\n"; FS = "\n" }
        NR == 1 { printf ":ir\n"; sub(/^[^:]*:ir\n/, "") }
        { for (at = 1; $at !~ /^# Counter Values/ && at <= NF; at++) {}
          while (++at <= NF && $at ~ /^[0-9]+$/) if ($at + 0 >= often) { print; next } }' "$folder/release.all" >"$folder/release.often"
    "$profdata" merge -o benches/pgo/release.profdata "$folder/release.often"
    rustc -vV >benches/pgo/compiler
    cp "$folder/counts.metadata" benches/pgo/metadata
    cargo clean --quiet --profile release
    ls -l benches/pgo/release.profdata
fi
