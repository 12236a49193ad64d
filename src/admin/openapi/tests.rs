use serde_json::Value;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Info, License, OpenApi, Ref, RefOr, Response, ResponseBuilder, Tag};
use utoipa_axum::router::OpenApiRouter;

use super::super::session::COOKIE_NAME;
use super::super::{
    block_list, breakers, certificates, dashboard, events, features, health, history, lifecycle, limits, maintenance,
    requests, routes, schema, session, system,
};
use super::{described, document_text, open};

/// What needs no token.
const OPEN: [&str; 5] = ["/", "/healthz", "/readyz", "/api/login", "/api/logout"];
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

/// From the handlers and the types of their answers. `FLAGSTONE_TESTS_WRITE=1` writes what the program has as text.
#[test]
fn the_document_is_that_of_the_handlers() {
    let described = [
        routes::described(),
        maintenance::described(),
        health::described(),
        breakers::described(),
        certificates::described(),
        lifecycle::described(),
        limits::described(),
        block_list::described(),
        events::described(),
        history::described(),
        features::described(),
        system::described(),
        session::described(),
        requests::described(),
        dashboard::described(),
        described(),
    ];
    let all = described.into_iter().fold(OpenApiRouter::with_openapi(base()), OpenApiRouter::merge);
    let mut document = all.into_openapi();
    names(&mut document);
    refusals(&mut document);
    guard(&mut document);
    let text = text_of(&serde_json::to_value(&document).unwrap());
    if std::env::var_os("FLAGSTONE_TESTS_WRITE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../static/openapi.json"), &text).unwrap();
        return;
    }
    assert!(
        text == document_text(),
        "run this test with FLAGSTONE_TESTS_WRITE=1, which writes static/openapi.json anew"
    );
}

#[test]
fn each_call_has_a_name_of_its_own() {
    let document: Value = serde_json::from_str(document_text()).unwrap();
    let calls = document["paths"].as_object().unwrap().values().flat_map(|call| call.as_object().unwrap().values());
    let names: Vec<_> = calls.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let once: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "{names:?}");
}

#[test]
fn without_a_token_nothing_is_said_of_one() {
    let whole: Value = serde_json::from_str(document_text()).unwrap();
    assert!(whole["components"]["securitySchemes"]["cookie"].is_object());
    assert!(whole["paths"]["/api/status"]["get"]["security"].is_array());
    let open = open();
    assert!(open["components"].get("securitySchemes").is_none());
    assert!(open["paths"]["/api/status"]["get"].get("security").is_none());
    assert_eq!(open["paths"]["/api/status"]["get"]["responses"], whole["paths"]["/api/status"]["get"]["responses"]);
}

/// Why there is no path for the files of the dashboard.
const ABOUT: &str = "All that the admin side answers, but for the files that the page at `/` is made of: they are below \
    `/dashboard/`, fixed for one version, hold no data and need no token.";

/// What is said before any call.
fn base() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(schema::Problem)))]
    struct Base;
    let mut document = <Base as utoipa::OpenApi>::openapi();
    document.info = Info::new("Flagstone admin API", env!("CARGO_PKG_VERSION"));
    document.info.license = Some(License::new("Apache-2.0"));
    document.info.description = Some(ABOUT.to_owned());
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

/// Every call may be refused.
fn refusals(document: &mut OpenApi) {
    let problem = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    for (_, _, operation) in operations(document) {
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
    let cookie = ApiKeyValue::with_description(COOKIE_NAME, "With _PORT behind it where the address names a port");
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    for (_, path, operation) in operations(document) {
        if !OPEN.contains(&path) {
            let either = ["token", "cookie"].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
            operation.security = Some(either.into());
        }
    }
}

/// What each call does and to what, which becomes a function's name in clients that are generated: names of handlers repeat.
fn names(document: &mut OpenApi) {
    for (method, path, operation) in operations(document) {
        let path = if path == "/" { "dashboard" } else { path };
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let capitalised = words.map(|word| word[..1].to_uppercase() + &word[1..]);
        operation.operation_id = Some(method.to_owned() + &capitalised.collect::<String>());
    }
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = (&'static str, &str, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, post, delete, put, patch, .. } = item;
        let all = [("get", get), ("post", post), ("delete", delete), ("put", put), ("patch", patch)];
        all.into_iter().filter_map(move |(method, operation)| Some((method, path.as_str(), operation.as_mut()?)))
    })
}

/// A line for each call and each type, so that a change shows in few.
fn text_of(document: &Value) -> String {
    let parts = lines_of(document, |key, value| match key {
        "paths" => lines_of(value, |_, call| call.to_string()),
        "components" => lines_of(value, |key, kind| match key {
            "schemas" => lines_of(kind, |_, schema| schema.to_string()),
            _ => kind.to_string(),
        }),
        _ => value.to_string(),
    });
    parts + "\n"
}

fn lines_of(object: &Value, text: impl Fn(&str, &Value) -> String) -> String {
    let entries = object.as_object().unwrap().iter();
    let lines: Vec<_> =
        entries.map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), text(key, value))).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

#[test]
fn a_rate_is_what_the_configuration_takes() {
    let document: Value = serde_json::from_str(document_text()).unwrap();
    let rate = &document["components"]["schemas"]["LimitChange"]["properties"]["rate"];
    assert_eq!(rate["pattern"], crate::config::rate::PATTERN);
}
