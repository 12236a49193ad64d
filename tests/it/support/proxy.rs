//! Flagstone in this very process, on port 0: quick to start, and everything inside can be looked at.
//!
//! For signals, standard streams and exit codes use `process::Flagstone` instead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flagstone::app::{App, Control, Source};
use flagstone::config;
use flagstone::config::model::Address;
use flagstone::upstream::Resolver;

use super::client;
use super::files::Folder;
use super::poll::{eventually, eventually_async};
use super::upstream::FakeUpstream;

/// A running proxy with a folder of its own.
pub struct TestProxy {
    app: Option<App>,
    pub folder: Folder,
}

/// A proxy about to start.
pub struct Starting {
    toml: String,
    folder: Folder,
    resolver: Resolver,
}

/// What a configuration gets when it does not say otherwise: no fixed port, no shared folder.
const SERVER: &str = "[server]\nstate_dir = \"state\"\nworkers = 2\n";
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";
const LOG: &str = "[log]\naccess = \"access.log\"\n";
/// How busy the machine is that runs the tests is no matter.
const HOST: &str = "[host]\nmemory_percent = 0\ndisk_percent = 0\ncpu_percent = 0\n";
const LISTENER: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

impl TestProxy {
    /// A proxy with this configuration. Tables `[server]`, `[admin]`, `[log]` and `[[listener]]` that are not in it
    /// get values fit for a test: the listener is called `web`.
    pub fn toml(toml: impl Into<String>) -> Starting {
        Starting { toml: toml.into(), folder: Folder::new(), resolver: Resolver::from_servers(&[]) }
    }

    /// A proxy with one route, `all`, to one upstream, `app`, that is this one. `tables` stands before both and may
    /// hold any other table; `route` holds further keys of the route.
    pub fn before(upstream: &FakeUpstream, tables: &str, route: &str) -> Starting {
        let endpoint = upstream.endpoint();
        Self::toml(format!(
            "{tables}\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n[[route]]\nname = \"all\"\nupstream = \"app\"\n{route}\n"
        ))
    }

    /// The listener `web`.
    pub fn address(&self) -> SocketAddr {
        self.listener("web")
    }

    /// # Panics
    /// When there is no such listener, or it is a unix socket.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let found = self.app().listeners().into_iter().find(|(other, _)| other == name);
        match found {
            Some((_, Address::Socket(address))) => address,
            other => panic!("no TCP listener {name}: {other:?}"),
        }
    }

    pub fn has_listener(&self, name: &str) -> bool {
        self.app().listeners().iter().any(|(other, _)| other == name)
    }

    /// # Panics
    /// When there is no admin side on TCP.
    pub fn admin(&self) -> SocketAddr {
        match self.app().admin_address() {
            Some(Address::Socket(address)) => address,
            other => panic!("no admin side on TCP: {other:?}"),
        }
    }

    /// Open downstream connections, by worker.
    pub fn connections(&self) -> Vec<usize> {
        self.app().connections()
    }

    pub fn control(&self) -> &Arc<Control> {
        self.app().control()
    }

    /// Writes another configuration; the watcher finds it.
    pub fn rewrite(&self, toml: &str) {
        self.folder.write("flagstone.toml", completed(toml));
    }

    /// Writes another configuration and waits until it serves.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn reload_with(&self, toml: &str) {
        self.rewrite(toml);
        let control = Arc::clone(self.control());
        let reloaded = tokio::task::spawn_blocking(move || control.reload()).await.expect("a reload does not panic");
        reloaded.unwrap_or_else(|problems| panic!("{problems}"));
    }

    /// Adds a route to the file; whether it comes to be served.
    pub async fn reloads(&self) -> bool {
        let before = self.folder.read("flagstone.toml");
        self.rewrite(&format!(
            "{before}\n[[route]]\nname = \"new\"\npath = [\"=/new\"]\nrespond = {{ body = \"new\" }}\n"
        ));
        let address = self.address();
        let is_new = async || client::get(address, "/new").await.is_ok_and(|answer| answer.text() == "new");
        eventually_async(Duration::from_secs(10), is_new).await
    }

    /// Waits until the access log has a line that contains `part`, and returns it.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn log_line(&self, part: &str) -> String {
        let mut found = None;
        let came = eventually(Duration::from_secs(10), || {
            let log = self.access_log();
            // The last line may not be there to its end.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            found = whole.lines().find(|line| line.contains(part)).map(str::to_owned);
            found.is_some()
        });
        assert!(came.await, "no line with {part:?} in {}", self.access_log());
        found.expect("it was just found")
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        self.folder.read("access.log")
    }

    /// Drains without delay; whether all finished in time.
    pub async fn drain(mut self, grace: Duration) -> bool {
        let app = self.app.take().expect("a proxy drains once");
        tokio::task::spawn_blocking(move || app.drain(Duration::ZERO, grace)).await.expect("draining does not panic")
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("only draining takes it")
    }
}

impl Starting {
    /// Uses a folder that holds other files already.
    pub fn in_folder(mut self, folder: Folder) -> Self {
        self.folder = folder;
        self
    }

    /// Asks these name servers; without this call only `localhost` resolves.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// # Panics
    /// When the configuration is refused.
    pub async fn start(self) -> TestProxy {
        let file = self.folder.write("flagstone.toml", completed(&self.toml));
        let loaded =
            config::load(&file, &|name| std::env::var(name).ok()).unwrap_or_else(|problems| panic!("{problems}"));
        let app =
            App::start_with(loaded, Source::File(file), self.resolver).unwrap_or_else(|problems| panic!("{problems}"));
        TestProxy { app: Some(app), folder: self.folder }
    }
}

fn completed(toml: &str) -> String {
    let mut text = String::new();
    for (table, default) in
        [("[server]", SERVER), ("[admin]", ADMIN), ("[log]", LOG), ("[host]", HOST), ("[[listener]]", LISTENER)]
    {
        if !toml.lines().any(|line| line.trim() == table) {
            text.push_str(default);
        }
    }
    text + toml
}

/// One route to these upstreams as endpoints of `app`, in turn; `extra` goes on in the table `[upstream.app]`.
pub fn in_turn(upstreams: &[&FakeUpstream], extra: &str) -> String {
    let endpoints: Vec<_> = upstreams.iter().map(|upstream| format!("\"{}\"", upstream.endpoint())).collect();
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [{}]\n\
         balance = \"round_robin\"\n{extra}",
        endpoints.join(", ")
    )
}
