//! What the linker is told when the whole is one static file, so that whoever builds it needs to know no flags: to keep
//! the table of addresses that are moved at start packed, which is 10 KiB instead of 570, and to keep each function
//! once. Without it the file is larger, no more.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|it| it.split(',').any(|part| part == value));
    let is_static = is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_FEATURE", "crt-static");
    if !is_static || !is("PROFILE", "release") {
        return;
    }
    // It is the C library in the file that reads the table, and it has to know how. Of another machine's nothing is
    // known.
    if std::env::var_os("HOST") != std::env::var_os("TARGET") || glibc().is_none_or(|version| version < (2, 36)) {
        return;
    }
    let Some(lld) = bundled_lld() else { return };
    argument(&format!("-B{}", lld.display()));
    argument("-fuse-ld=lld");
    argument("-Wl,-z,pack-relative-relocs");
    // One function where many have the same instructions: nothing tells functions apart by their address.
    argument("-Wl,--icf=all");
}

fn argument(text: &str) {
    println!("cargo::rustc-link-arg-bin=flagstone={text}");
}

/// Where the toolchain keeps its own lld under the name that gcc looks for.
fn bundled_lld() -> Option<PathBuf> {
    let sysroot = printed(Command::new(std::env::var_os("RUSTC")?).args(["--print", "sysroot"]))?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(std::env::var_os("HOST")?).join("bin/gcc-ld");
    folder.join("ld.lld").exists().then_some(folder)
}

/// The version of the machine's C library.
fn glibc() -> Option<(u32, u32)> {
    let text = printed(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let (major, rest) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
