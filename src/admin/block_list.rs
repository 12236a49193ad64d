//! The block list: who is on it, putting on and taking off.

pub(super) mod schema;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::delete;
use http::StatusCode;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::{end, object};
use super::calls::calls;
use super::disk::on_disk;
use super::routes::Panel;
use super::view::{Problem, Unusable, problem};
use crate::policy::{access, maintenance};
use crate::runtime::block_list::{Blocked, entry_json};

const NO_NETWORK: &str = "cidr is an address or a network such as 192.0.2.0/24";

pub(super) fn router() -> Router<Panel> {
    // A network's slash may come as it is, or encoded.
    let plain = delete(async |panel: State<Panel>, Path((net, length)): Path<(String, String)>| {
        unblock(panel, Path(format!("{net}/{length}"))).await
    });
    calls().route("/api/admin/blocklist/{net}/{length}", plain)
}

calls!(list, block, unblock);

#[utoipa::path(get, path = "/api/admin/blocklist", tag = "block list", responses((status = 200, description = "Who is turned away", body = schema::BlockList)))]
async fn list(State(panel): State<Panel>) -> Json<Value> {
    let entries = panel.control.shared.runtime.blocked.entries();
    Json(json!({ "entries": entries.into_iter().map(entry_json).collect::<Vec<_>>() }))
}

#[utoipa::path(post, path = "/api/admin/blocklist", tag = "block list", request_body = schema::Block, responses((status = 200, description = "It is turned away from now on", body = schema::BlockedNetwork), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json"), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn block(State(panel): State<Panel>, body: Bytes) -> Result<Json<Value>, Problem> {
    let (net, until) = parse(&body)?;
    change(panel, move |blocked| {
        blocked.block(net, until)?;
        tracing::info!(%net, until = until.map(tracing::field::display), "a network was blocked");
        Ok(entry_json((net, until)))
    })
    .await
}

#[utoipa::path(delete, path = "/api/admin/blocklist/{cidr}", tag = "block list", params(("cidr" = String, Path, description = "As it is listed")), responses((status = 200, description = "It is let in again", body = schema::Unblocked), (status = 404, description = "There is none of this name", body = super::schema::Problem, content_type = "application/problem+json"), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json"), (status = 500, description = "It could not be written", body = super::schema::Problem, content_type = "application/problem+json"), (status = 503, description = "Another process is taking over: try again", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn unblock(State(panel): State<Panel>, Path(cidr): Path<String>) -> Result<Json<Value>, Problem> {
    let net = network(&cidr).ok_or_else(|| problem(StatusCode::UNPROCESSABLE_ENTITY, NO_NETWORK))?;
    change(panel, move |blocked| match blocked.unblock(net)? {
        true => {
            tracing::info!(%net, "a network was taken off the block list");
            Ok(json!({ "cidr": net.to_string() }))
        }
        false => Err(problem(StatusCode::NOT_FOUND, &format!("{net} is not on the block list"))),
    })
    .await
}

async fn change(
    panel: Panel,
    change: impl FnOnce(&Blocked) -> Result<Value, Problem> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let changed = on_disk(move || {
        let shared = &panel.control.shared;
        let changed = change(&shared.runtime.blocked)?;
        shared.switched.notify_waiters();
        Ok(changed)
    });
    changed.await.map(Json)
}

fn parse(body: &[u8]) -> Result<(IpNet, Option<Timestamp>), Unusable> {
    let body = object(body, &["cidr", "ttlSeconds"])?;
    let net = body.get("cidr").and_then(Value::as_str).and_then(network).ok_or(NO_NETWORK)?;
    Ok((net, end(&body, Timestamp::now())?))
}

/// As it will be listed.
fn network(text: &str) -> Option<IpNet> {
    maintenance::network(text).map(|net| access::canonical(net).trunc())
}
