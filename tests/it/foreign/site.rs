//! A site with something of everything: what the dashboard shows, what Prometheus scrapes.

use std::net::SocketAddr;

use super::HEAD;
use crate::support::certs::{Algorithm, Ca};
use crate::support::files::Folder;
use crate::support::process::Flagstone;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// Routes `site`, which is always well, and `orders`, whose app is not.
pub(super) struct Site {
    pub(super) flagstone: Flagstone,
    pub(super) admin: SocketAddr,
    pub(super) web: SocketAddr,
    _app: FakeUpstream,
}

impl Site {
    /// Its breaker opens after so many failures; its certificate lasts as many days.
    pub(super) async fn start(failures: u32, certificate_days: i32) -> Self {
        let app = FakeUpstream::http1().route("/orders", Reply::status(500, "oh")).start().await;
        let mut flagstone = serve(&config(&app.endpoint(), failures), certificate_days).await;
        let (admin, web) = (flagstone.admin().await, flagstone.address("web").await);
        Self { flagstone, admin, web, _app: app }
    }
}

/// Serves it, with a certificate beside it.
pub(super) async fn serve(config: &str, certificate_days: i32) -> Flagstone {
    let folder = Folder::new();
    Ca::new().leaf_with(&["shop.example"], Algorithm::Ecdsa, certificate_days).write(&folder, "site");
    Flagstone::serve_in(folder, config).await
}

pub(super) fn config(endpoint: &str, failures: u32) -> String {
    format!(
        r#"{HEAD}
[[listener]]
name = "secure"
address = "127.0.0.1:0"
[listener.tls]
certificates = [{{ cert = "site.pem", key = "site.key" }}]
[[route]]
name = "site"
respond = {{ status = 200, body = "the site" }}
limits = ["per_ip"]
[[route]]
name = "orders"
path = ["/orders"]
upstream = "app"
[upstream.app]
endpoints = ["{endpoint}"]
[upstream.app.breaker]
failures = {failures}
open = "5m"
[limit.per_ip]
key = "client_ip"
rate = "1000/1m"
burst = 100
[features]
"new.checkout" = true
# On a day that tests are seldom run on.
[[maintenance.window]]
name = "leap day"
schedule = "0 3 29 2 *"
duration = "1h"
"#
    )
}
