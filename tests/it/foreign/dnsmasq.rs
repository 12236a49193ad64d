//! dnsmasq tells where the app is.

use std::net::SocketAddr;
use std::process::Command;

use flagstone::upstream::Resolver;

use crate::names::{DEADLINE, becomes, ip, proxy, replicas};
use crate::support::admin;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::port::Port;
use crate::support::process::{Process, Signal};
use crate::support::proxy::TestProxy;

struct Dnsmasq {
    process: Process,
    address: SocketAddr,
    folder: Folder,
}

impl Dnsmasq {
    /// Tells of the domain `test` what it was told by [`Self::hosts`], for a second; `www.test` is another name of
    /// `app.test`.
    ///
    /// # Errors
    /// That it is not installed.
    async fn start() -> Result<Self, String> {
        let program = program("dnsmasq")?;
        let folder = Folder::new();
        folder.write("hosts", "");
        // Kept for TCP; somebody may have it for UDP.
        for kept in std::iter::repeat_with(Port::reserve).take(5) {
            let address = kept.address();
            let mut command = Command::new(&program);
            command.args(["--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-", "--pid-file="]);
            command.args(["--user=", "--bind-interfaces", "--listen-address=127.0.0.1", "--no-resolv", "--no-hosts"]);
            command.args(["--local=/test/", "--local-ttl=1", "--cname=www.test,app.test"]);
            command.arg(format!("--port={}", address.port()));
            command.arg(format!("--addn-hosts={}", folder.join("hosts").display()));
            let mut process = Process::start(&mut command);
            let started = || process.ended().is_some() || process.stderr().contains("started, version");
            assert!(eventually(DEADLINE, started).await, "{}", process.stderr());
            if process.ended().is_none() {
                return Ok(Self { process, address, folder });
            }
        }
        panic!("dnsmasq found no free port");
    }

    /// From now on `name` has these addresses and there is no other name.
    async fn hosts(&self, name: &str, addresses: &[String]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        self.folder.replace("hosts", lines);
        let read = || self.process.stderr().matches("read ").count();
        let before = read();
        self.process.signal(Signal::HUP);
        assert!(eventually(DEADLINE, || read() > before).await, "{}", self.process.stderr());
    }
}

#[tokio::test]
async fn replicas_that_dnsmasq_tells_of_are_followed_through_an_alias() {
    let dnsmasq = or_left_out!(Dnsmasq::start().await);
    let replicas = replicas(3).await;
    let told = |numbers: &[u8]| numbers.iter().map(|number| ip(*number).to_string()).collect::<Vec<_>>();
    dnsmasq.hosts("app.test", &told(&[1])).await;
    let proxy = proxy(dnsmasq.address, "www.test", replicas[0].address().port(), "").await;
    for numbers in [&[1_u8][..], &[1, 2, 3], &[2]] {
        dnsmasq.hosts("app.test", &told(numbers)).await;
        becomes(&proxy, numbers).await;
    }
}

/// What does not fit into a datagram is asked for again over TCP (RFC 7766).
#[tokio::test]
async fn two_hundred_addresses_come_over_tcp() {
    let dnsmasq = or_left_out!(Dnsmasq::start().await);
    let addresses: Vec<_> = (1..=200).map(|number| format!("127.0.1.{number}")).collect();
    dnsmasq.hosts("many.test", &addresses).await;
    let toml = "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"many.test:1\"]\n";
    let proxy = TestProxy::toml(toml).resolver(Resolver::from_servers(&[dnsmasq.address])).start().await;
    let all = eventually_async(DEADLINE, async || {
        let health = admin::json(proxy.admin(), "/api/health").await;
        health["checks"]["app"]["endpoints"].as_object().is_some_and(|endpoints| endpoints.len() == addresses.len())
    });
    assert!(all.await, "{}", admin::json(proxy.admin(), "/api/health").await);
}
