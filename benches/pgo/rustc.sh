#!/bin/sh
# Called by cargo in place of rustc (`rustc-wrapper` in .cargo/config.toml): tells the compiler which way requests mostly go.
#   `cargo build --release`     by the counts in this folder, if they were counted with the same compiler. Only the same
#                               compiler, cargo profile and `--target` (none) give functions the same names
#   FLAGSTONE_PGO=FILE cargo …  by other counts
#   FLAGSTONE_PGO=FOLDER/ …     builds what counts, into that folder
#   RUSTC_WRAPPER= cargo …      leaves all of it out
# benches/pgo.sh makes the counts.
rustc=$1
shift
# Neither what is built to be tested, nor build scripts and macros: in a release those are not optimised, and with `--target`
# they are built without it.
case " $* " in
    *" opt-level="[23sz]" "*" --target "* | *" opt-level=3 "*"--out-dir "*"/release/deps "*) ;;
    *) exec "$rustc" "$@" ;;
esac
# Part of all its functions' names. It depends on the version and the features of every crate below.
metadata=
case " $* " in
    *" --crate-name flagstone_engine "*) metadata=" $* "; metadata=${metadata#* metadata=}; metadata=${metadata%% *} ;;
esac
counts=${FLAGSTONE_PGO:-}
if [ -z "$counts" ]; then
    folder=$(dirname "$0")
    case " $* " in
        *" --target "*) ;;
        # `cargo bench` builds there too, in four units.
        *" codegen-units=1 "*) "$rustc" -vV 2>/dev/null | cmp -s - "$folder/compiler" && counts=$folder/release.profdata ;;
    esac
    [ -n "$counts" ] || exec "$rustc" "$@"
    if [ -n "$metadata" ] && [ "$metadata" != "$(cat "$folder/metadata")" ]; then
        echo "benches/pgo: counted with other versions or features of dependencies, and so of no use: benches/pgo.sh release" >&2
    fi
fi
# LLVM puts small functions into their callers before it counts, so that there is less to count; what is built for size
# grows by it. Both builds go without, or their functions would not be the same.
alike=-Cllvm-args=-disable-preinline
case $counts in
    */)
        [ -z "$metadata" ] || echo "$metadata" >"${counts%/}.metadata"
        exec "$rustc" "$@" "-Cprofile-generate=${counts%/}" "$alike"
        ;;
esac
# Much has never run under load or has changed since: no reason for thousands of warnings.
missing=-Cllvm-args=-pgo-warn-missing-function=false changed=-Cllvm-args=-no-pgo-warn-mismatch
# What the load did not come through is made small, not only where the rest does not fit into the processor's cache anyway.
small=-Cllvm-args=-pgso-lwss-only=false
# A function that is called often is put into each of its callers if it is shorter than this. LLVM's own limit is ten times as
# long, for a hundredth of the instructions at most.
short=-Cllvm-args=-hot-callsite-threshold=300
exec "$rustc" "$@" "-Cprofile-use=$counts" "$alike" "$missing" "$changed" "$small" "$short"
