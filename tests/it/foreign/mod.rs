//! Flagstone between programs that nobody wrote for it: nginx and Python behind it, curl, wrk, a browser before it,
//! goaccess and dnsmasq beside it. Each is the real binary; a test whose program is missing is left out.

pub(crate) mod browser;
mod curl;
mod dashboard;
mod dnsmasq;
mod goaccess;
mod grpc;
mod http2;
mod http_server;
mod nginx;
mod prometheus;
mod schemathesis;
mod site;
mod slow;
mod tls;
mod websockets;
mod wrk;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::files::Folder;
use crate::support::left_out;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Ended, Flagstone, Process};

/// For what moves a gigabyte on a busy machine.
const LONG: Duration = Duration::from_secs(100);

/// Everything that the tests here have in common; routes and upstreams follow.
const HEAD: &str = r#"
[server]
state_dir = "state"
[admin]
listen = "127.0.0.1:0"
[log]
access = "access.log"
[host]
memory_percent = 0
disk_percent = 0
cpu_percent = 0
[[listener]]
name = "web"
address = "127.0.0.1:0"
"#;

/// The configuration that sends everything to one endpoint, with no bound on bodies.
fn all_to(endpoint: &str) -> String {
    format!(
        "{HEAD}[[route]]\nname = \"all\"\nupstream = \"app\"\nmax_body = 0\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n"
    )
}

/// The real binary in front of one endpoint.
async fn flagstone_before(endpoint: &str) -> (Flagstone, SocketAddr) {
    let mut flagstone = Flagstone::serve(&all_to(endpoint)).await;
    let address = flagstone.address("web").await;
    (flagstone, address)
}

/// Debian's nginx in the foreground, on a unix socket, since it cannot take a free port.
struct Nginx {
    process: Process,
    folder: Folder,
}

impl Nginx {
    /// Serves the folder `site` of `folder` with these lines in its `server` block.
    ///
    /// # Errors
    /// That it is not installed.
    async fn serve(folder: Folder, server: &str) -> Result<Self, String> {
        let program = left_out::program("nginx")?;
        let root = folder.path().display().to_string();
        let config = folder.write("nginx.conf", nginx_config(&root, server));
        let mut command = Command::new(program);
        command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(config);
        let mut nginx = Self { process: Process::start(&mut command), folder };
        let socket = nginx.folder.join("nginx.sock");
        let up = eventually(DEADLINE, || {
            nginx.process.ended().is_some() || std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        assert!(up.await && nginx.process.ended().is_none(), "nginx: {}", nginx.process.stderr());
        Ok(nginx)
    }

    /// As an upstream names it.
    fn endpoint(&self) -> String {
        format!("unix:{}", self.folder.join("nginx.sock").display())
    }
}

fn nginx_config(root: &str, server: &str) -> String {
    // Without a master there is nobody to change users for, and root's own files are what is served.
    format!(
        r#"
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {root}/temp-body;
    proxy_temp_path {root}/temp-proxy;
    fastcgi_temp_path {root}/temp-fastcgi;
    uwsgi_temp_path {root}/temp-uwsgi;
    scgi_temp_path {root}/temp-scgi;
    types {{ text/html html; text/plain txt; application/octet-stream bin; }}
    sendfile on;
    gzip on;
    gzip_min_length 0;
    gzip_types text/plain;
    gzip_vary on;
    server {{
        listen unix:{root}/nginx.sock;
        root {root}/site;
{server}
    }}
}}
"#
    )
}

/// A Python script that prints `port N` once it listens on 127.0.0.1.
async fn python_on_a_port(python: PathBuf, script: &str, folder: &Folder) -> (Process, String) {
    let file = folder.write("app.py", script);
    let mut process = Process::start(Command::new(python).arg("-u").arg(file).current_dir(folder.path()));
    let line = process.stdout_line("port ").await;
    let port: u16 = line.trim_start_matches("port ").trim().parse().expect("a port");
    (process, format!("127.0.0.1:{port}"))
}

/// Runs curl, silent but for errors, and without anybody's `.curlrc` or proxy.
async fn curl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    let mut process = Process::start(&mut curl_command(args));
    let status = process.wait(LONG).await;
    Ended { status, stdout: process.stdout(), stderr: process.stderr() }
}

fn curl_command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--noproxy", "*", "--http1.1"]).args(args);
    command
}

/// What curl printed.
///
/// # Panics
/// When it failed.
async fn curl_text<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let ended = curl(args).await;
    assert!(ended.status.success(), "curl: {}\n{}", ended.status, ended.stderr);
    ended.stdout
}

/// The value of a header in what `curl -i` printed.
fn header<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    printed.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
