#!/usr/bin/env bash
# Builds what is shipped with profile-guided optimisation: an instrumented build serves the load of peers.sh, and what it
# counted tells the compiler which way requests mostly go (https://doc.rust-lang.org/rustc/profile-guided-optimization.html).
#   usage: benches/pgo.sh
# Two builds of some minutes each, and two minutes of load. Needs what peers.sh needs but HAProxy, and `rustup component add llvm-tools`.
# The binary is target/pgo/flagstone; `.ci/ship target/pgo/flagstone` holds it to its promises.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || { echo "pgo.sh: needs llvm-profdata: rustup component add llvm-tools" >&2; exit 2; }
target=$(uname -m)-unknown-linux-gnu folder=$PWD/target/pgo
build() { # FOLDER FLAGS
    RUSTFLAGS="-C target-feature=+crt-static $2" \
        cargo build --locked --profile dist --bin flagstone --target "$target" --target-dir "$folder/$1"
}
# Before anything is counted LLVM puts small functions into their callers, so that there is less to count; what is built for
# size grows by it. Both builds go without, or their functions would not be the same.
alike=-Cllvm-args=-disable-preinline
# What the load did not come through is made small, not only where the rest does not fit into the processor's cache anyway.
small=-Cllvm-args=-pgso-lwss-only=false
# A function that is called often is put into each of its callers if it is shorter than this. LLVM's own limit is ten times as
# long, for a hundredth of the instructions at most.
short=-Cllvm-args=-hot-callsite-threshold=300
# cargo does not see that counts have changed.
rm -rf "$folder/counts" "$folder/counts.profdata" "$folder/using"
build counting "-Cprofile-generate=$folder/counts $alike"
# What most sites serve, each for as long.
benches/peers.sh --alone --only kept,h2,close,large,maintenance,websocket --rounds 1 --seconds 5 \
    "$folder/counting/$target/dist/flagstone" >/dev/null
"$profdata" merge -o "$folder/counts.profdata" "$folder/counts"
# Much never ran under this load and has no counts: no reason for thousands of warnings.
build using "-Cprofile-use=$folder/counts.profdata -Cllvm-args=-pgo-warn-missing-function=false $alike $small $short"
cp "$folder/using/$target/dist/flagstone" "$folder/flagstone"
ls -l "$folder/flagstone"
