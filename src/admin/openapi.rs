//! `/api/openapi.json`: the document, made from the very handlers that answer.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Info, License, OpenApi, Ref, RefOr, Response, ResponseBuilder, Tag};

use super::routes::Panel;
use super::schema;
use super::session::COOKIE_NAME;

/// What needs no token.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/api/login", "/api/logout"];
/// What any call may be answered with, and why.
const REFUSALS: [(&str, &str); 7] = [
    ("400", "The request is malformed"),
    ("401", "The token is missing or wrong"),
    ("403", "A foreign Host or Origin"),
    ("405", "The call does not take this method"),
    ("413", "The body is too large"),
    ("429", "Too many wrong tokens"),
    ("431", "The head is too large"),
];

/// What is said before any call.
pub(super) fn base() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(schema::Problem)))]
    struct Base;
    let mut document = <Base as utoipa::OpenApi>::openapi();
    document.info = Info::new("Flagstone admin API", env!("CARGO_PKG_VERSION"));
    document.info.license = Some(License::new("Apache-2.0"));
    document.tags = Some(
        [
            "status",
            "health",
            "maintenance",
            "circuit breakers",
            "limits",
            "block list",
            "features",
            "metrics",
            "process",
            "session",
        ]
        .map(Tag::new)
        .into(),
    );
    document
}

pub(super) fn router(mut document: OpenApi) -> Router<Panel> {
    refusals(&mut document);
    // Kept as text: as a tree it takes some megabytes.
    let open = text_of(&document);
    guard(&mut document);
    let guarded = text_of(&document);
    Router::new().route(
        "/api/openapi.json",
        get(async move |State(panel): State<Panel>| {
            // It says what is asked for here and now.
            let has_token = panel.control.live.load_full().config.admin.token.is_some();
            let document = if has_token { &guarded } else { &open };
            ([(CONTENT_TYPE, "application/json")], document.clone())
        }),
    )
}

fn text_of(document: &OpenApi) -> Bytes {
    serde_json::to_vec(document).expect("a document of ours prints").into()
}

/// Every call may be refused.
fn refusals(document: &mut OpenApi) {
    let problem = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    for (_, operation) in operations(document) {
        for (status, description) in REFUSALS {
            let refusal =
                ResponseBuilder::new().description(description).content("application/problem+json", problem.clone());
            let refusal: RefOr<Response> = refusal.build().into();
            operation.responses.responses.entry(status.to_owned()).or_insert(refusal);
        }
    }
}

/// The header or the cookie on all but a few.
fn guard(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE_NAME))));
    for (path, operation) in operations(document) {
        if !OPEN.contains(&path) {
            let either = ["token", "cookie"].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
            operation.security = Some(either.into());
        }
    }
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = (&str, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let all = [&mut item.get, &mut item.post, &mut item.delete, &mut item.put, &mut item.patch];
        all.into_iter().flatten().map(move |operation| (path.as_str(), operation))
    })
}
