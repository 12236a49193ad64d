//! The admin side: probes, metrics and status, for loopback, unix sockets or bearers of the token.
//!
//! Not reachable through a listener: it has its own socket and its own thread.

mod guard;
mod routes;
mod view;

use std::sync::Arc;

use crate::app::Control;
use crate::config::model::Admin;
use crate::config::{Problem, Problems};
use crate::error::io_reason;
use crate::listener::bind::{self, Bound};

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
    let served = match socket {
        None => std::future::pending().await,
        Some(Bound::Tcp(socket)) => match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        },
        Some(Bound::Unix(socket, _file)) => match tokio::net::UnixListener::from_std(socket) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = served {
        tracing::error!(%error, "the admin side has stopped");
    }
}
