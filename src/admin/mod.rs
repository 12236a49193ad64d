//! The admin side: probes, metrics and status, for loopback, unix sockets or bearers of the token.
//!
//! Not reachable through a listener: it has its own socket and its own thread.

mod block_list;
mod breakers;
mod certificates;
mod dashboard;
mod events;
mod features;
mod guard;
mod health;
mod history;
mod lifecycle;
mod limits;
pub(crate) mod maintenance;
mod query;
mod requests;
mod routes;
mod server;
mod session;
mod system;
mod view;

use std::sync::Arc;

use crate::app::Control;
use crate::config::model::Admin;
use crate::config::{Problem, Problems};
use crate::error::io_reason;
use crate::listener::bind::{self, Bound};
use server::Listener;

/// Binds the admin socket, if there is to be one.
///
/// # Errors
/// The address is busy or not ours.
pub(crate) fn bind(admin: &Admin) -> Result<Option<Bound>, Problems> {
    let Some(address) = &admin.listen else { return Ok(None) };
    bind::bind(address).map(Some).map_err(|error| {
        let text = format!("cannot listen on {address}: {}", io_reason(&error));
        Problem::new("admin.listen", text).with_help("name a free address, or \"\" for no admin side").into()
    })
}

/// Serves until dropped; without a socket it waits for ever.
pub(crate) async fn serve(socket: Option<Bound>, control: Arc<Control>) {
    let router = routes::router(control);
    let _file;
    let listener = match socket {
        None => return std::future::pending().await,
        Some(Bound::Tcp(socket)) => tokio::net::TcpListener::from_std(socket).map(Listener::Tcp),
        Some(Bound::Unix(socket, file)) => {
            // Removed when this is over.
            _file = file;
            tokio::net::UnixListener::from_std(socket).map(Listener::Unix)
        }
    };
    match listener {
        Ok(listener) => server::serve(listener, router).await,
        Err(error) => {
            tracing::error!(%error, "the admin side has stopped");
            std::future::pending().await
        }
    }
}
