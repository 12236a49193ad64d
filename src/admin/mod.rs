//! The admin side: probes, metrics and status, for loopback, unix sockets or bearers of the token.
//!
//! Not reachable through a listener: it has its own socket and its own thread.

mod block_list;
mod body;
mod breakers;
mod calls;
mod certificates;
mod dashboard;
mod disk;
mod events;
mod features;
mod guard;
mod health;
mod history;
mod lifecycle;
mod limits;
pub(crate) mod maintenance;
mod openapi;
mod place;
mod query;
mod requests;
mod routes;
mod schema;
mod server;
mod session;
mod system;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::app::Control;
use crate::config::model::Admin;
use crate::config::{Problem, Problems};
use crate::error::io_reason;
use crate::listener::bind::{self, Bound, Families};
use crate::upgrade::Inheritance;
pub(crate) use place::Place;
use server::Listener;

/// How long what is under way at a place that was left may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Binds the admin socket, if there is to be one; `before` is the one that it will take the place of.
///
/// # Errors
/// The address is busy or not ours.
pub(crate) fn bind(admin: &Admin, inherited: &mut Inheritance, before: Option<&Bound>) -> Result<Place, Problems> {
    let Some(address) = &admin.listen else { return Ok(Place::new(None, None)) };
    let bound = match inherited.admin(address) {
        Some(bound) => Ok(bound),
        None => bind::bind_beside(address, Families::Any, before.or(inherited.other_admin()).as_slice()),
    };
    bound.map(|socket| Place::new(Some(address.clone()), Some(socket))).map_err(|error| {
        let text = format!("cannot listen on {address}: {}", io_reason(&error));
        let help = format!("{}, or \"\" for no admin side", bind::remedy(address, &error));
        Problem::new("admin.listen", text).with_help(help).into()
    })
}

/// Serves until dropped, wherever the admin side is. When the end of a place begins it accepts no more, closes each
/// connection after the answer that it owes, and notes when that is done.
pub(crate) async fn serve(control: Arc<Control>) {
    let refusals = Arc::new(guard::Refusals::new());
    let mut places = control.admin_places();
    // Ended with this, as are their connections.
    let mut serving = JoinSet::new();
    loop {
        let place = Arc::clone(&places.borrow_and_update());
        serving.spawn(serve_at(place, Arc::clone(&control), Arc::clone(&refusals)));
        // The sender lives as long as `control`.
        let _ = places.changed().await;
        while serving.try_join_next().is_some() {}
    }
}

async fn serve_at(place: Arc<Place>, control: Arc<Control>, refusals: Arc<guard::Refusals>) {
    let Some(socket) = place.accept() else { return place.done() };
    let router = routes::router(control, refusals, Arc::clone(&place));
    // The socket itself stays with the place, which may pass it on and closes it.
    let listener = match &*socket {
        Bound::Tcp(socket, _) => socket.try_clone().and_then(tokio::net::TcpListener::from_std).map(Listener::Tcp),
        Bound::Unix(socket, _) => socket.try_clone().and_then(tokio::net::UnixListener::from_std).map(Listener::Unix),
    };
    drop(socket);
    match listener {
        Ok(listener) => {
            tokio::select! {
                () = server::serve(listener, router, place.closing(), || place.stopped()) => {}
                () = place.is_forgotten(LAST_WORDS) => {}
            }
        }
        Err(error) => tracing::error!(%error, "the admin side has stopped"),
    }
    place.stopped();
    place.done();
}
