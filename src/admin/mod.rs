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
mod openapi;
mod query;
mod requests;
mod routes;
mod schema;
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
use crate::upgrade::Inheritance;
use server::Listener;

/// Binds the admin socket, if there is to be one.
///
/// # Errors
/// The address is busy or not ours.
pub(crate) fn bind(admin: &Admin, inherited: &mut Inheritance) -> Result<Option<Bound>, Problems> {
    let Some(address) = &admin.listen else { return Ok(None) };
    let bound = inherited.admin(address).map_or_else(|| bind::bind(address), Ok);
    bound.map(Some).map_err(|error| {
        let text = format!("cannot listen on {address}: {}", io_reason(&error));
        Problem::new("admin.listen", text).with_help("name a free address, or \"\" for no admin side").into()
    })
}

/// Serves until dropped. When the end begins it accepts no more, closes each connection after the answer that it owes, and
/// says when that is done.
pub(crate) async fn serve(socket: Option<Arc<Bound>>, control: Arc<Control>) {
    let Some(socket) = socket else {
        control.admin_is_done();
        return std::future::pending().await;
    };
    let (router, closing) = (routes::router(Arc::clone(&control)), control.admin_closing());
    // The socket itself stays with whoever may pass it on.
    let listener = match &*socket {
        Bound::Tcp(socket) => socket.try_clone().and_then(tokio::net::TcpListener::from_std).map(Listener::Tcp),
        Bound::Unix(socket, _) => socket.try_clone().and_then(tokio::net::UnixListener::from_std).map(Listener::Unix),
    };
    match listener {
        Ok(listener) => {
            server::serve(listener, router, closing).await;
            control.admin_is_done();
            std::future::pending().await
        }
        Err(error) => {
            tracing::error!(%error, "the admin side has stopped");
            std::future::pending().await
        }
    }
}
