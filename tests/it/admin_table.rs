//! The admin side's calls, the whole table: each answers, in its shape, and stands in the OpenAPI document.

use serde_json::{Value, json};

use crate::support::admin::{ask, call};
use crate::support::client::Client;
use crate::support::proxy::TestProxy;

const TOML: &str = "[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"per_ip\"]\nfeature = \"shop\"\n\
                    [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"10/1m\"\n\
                    [features]\nshop = true\n";

/// Method, path, body, status, and the keys of the answer.
type Row = (&'static str, &'static str, Option<&'static str>, u16, &'static [&'static str]);

const MAINTENANCE: &[&str] = &[
    "is_active",
    "mode",
    "reason",
    "started_at",
    "estimated_completion",
    "routes",
    "blocked_requests",
    "in_flight",
    "by",
    "upcoming",
];

const TABLE: &[Row] = &[
    ("GET", "/healthz", None, 200, &[]),
    ("GET", "/readyz", None, 200, &[]),
    ("GET", "/api/health/summary", None, 200, &["status", "total", "healthy", "unhealthy"]),
    ("GET", "/api/health", None, 200, &["status", "version", "uptimeSeconds", "maintenance", "checks"]),
    (
        "GET",
        "/api/status",
        None,
        200,
        &["maintenance", "services", "circuitBreakers", "limits", "featureFlags", "certificates", "config", "process"],
    ),
    ("GET", "/api/status/services", None, 200, &["services"]),
    ("GET", "/api/status/circuit-breakers", None, 200, &["circuitBreakers"]),
    ("GET", "/api/status/feature-flags", None, 200, &["featureFlags"]),
    ("GET", "/api/status/limits", None, 200, &["limits"]),
    ("GET", "/api/maintenance/status", None, 200, MAINTENANCE),
    ("POST", "/api/admin/maintenance/enable", None, 200, MAINTENANCE),
    ("POST", "/api/admin/maintenance/enable", Some(r#"{"reason":"x","mode":"read_only"}"#), 200, MAINTENANCE),
    ("POST", "/api/admin/maintenance/disable", None, 200, MAINTENANCE),
    (
        "POST",
        "/api/maintenance/emergency",
        Some(r#"{"reason":"x","terminate_jobs":true,"grace_period":5}"#),
        200,
        MAINTENANCE,
    ),
    ("POST", "/api/admin/maintenance/disable", None, 200, MAINTENANCE),
    ("POST", "/api/admin/circuit-breakers/app/open", None, 200, &["circuitBreakers"]),
    ("POST", "/api/admin/circuit-breakers/app/reset", None, 200, &["circuitBreakers"]),
    ("POST", "/api/admin/circuit-breakers/none/reset", None, 404, &["detail"]),
    ("POST", "/api/admin/feature-flags", Some(r#"{"key":"shop","value":false}"#), 200, &["key", "value", "default"]),
    ("POST", "/api/admin/feature-flags", Some(r#"{"key":"none","value":false}"#), 404, &["detail"]),
    (
        "POST",
        "/api/admin/limits/per_ip",
        Some(r#"{"rate":"1/1m","burst":2,"ttlSeconds":60}"#),
        200,
        &["rate", "override"],
    ),
    ("DELETE", "/api/admin/limits/per_ip", None, 200, &["rate", "override"]),
    ("POST", "/api/admin/blocklist", Some(r#"{"cidr":"192.0.2.0/24","ttlSeconds":60}"#), 200, &["cidr", "until"]),
    ("GET", "/api/admin/blocklist", None, 200, &["entries"]),
    ("DELETE", "/api/admin/blocklist/192.0.2.0/24", None, 200, &["cidr"]),
    ("POST", "/api/admin/blocklist", Some(r#"{"cidr":"192.0.2.0/24"}"#), 200, &["cidr", "until"]),
    ("DELETE", "/api/admin/blocklist/192.0.2.0%2F24", None, 200, &["cidr"]),
    ("GET", "/api/certificates", None, 200, &[]),
    ("GET", "/api/config", None, 200, &["generation", "source", "loadedAt", "config"]),
    ("POST", "/api/admin/reload", None, 200, &["generation", "changes"]),
    (
        "GET",
        "/api/metrics",
        None,
        200,
        &[
            "requestsPerSecond",
            "responseTimeP50",
            "responseTimeP95",
            "responseTimeP99",
            "errorRate",
            "activeRequests",
            "activeConnections",
            "server",
        ],
    ),
    ("GET", "/metrics", None, 200, &[]),
    (
        "GET",
        "/api/admin/system/status",
        None,
        200,
        &["pid", "version", "uptimeSeconds", "workers", "memory", "openFiles", "listeners", "generationsAlive"],
    ),
    ("GET", "/api/openapi.json", None, 200, &["openapi", "paths"]),
    ("GET", "/", None, 200, &[]),
];

#[tokio::test]
async fn every_call_answers_in_its_shape() {
    let proxy = TestProxy::toml(TOML).start().await;
    for &(method, path, body, status, keys) in TABLE {
        let body = body.map(|body| serde_json::from_str(body).unwrap());
        let (answered, value) = call(proxy.admin(), method, path, body).await;
        assert_eq!(answered, status, "{method} {path}: {value}");
        for &key in keys {
            assert!(value.get(key).is_some(), "{method} {path} has no {key}: {value}");
        }
    }
    let breakers = call(proxy.admin(), "GET", "/api/status/circuit-breakers", None).await.1;
    let app = &breakers["circuitBreakers"]["app"];
    assert_eq!((&app["state"], &app["failures"]), (&json!("CLOSED"), &json!(0)), "{breakers}");
    for key in ["totalCalls", "successfulCalls", "failedCalls", "rejectedCalls"] {
        assert_eq!(app["statistics"][key], 0, "{breakers}");
    }
    let services = call(proxy.admin(), "GET", "/api/status/services", None).await.1;
    for key in ["registered", "initialized", "ready"] {
        assert!(services["services"]["app"][key].is_boolean(), "{services}");
    }
    let server = &call(proxy.admin(), "GET", "/api/metrics", None).await.1["server"];
    assert!(server["uptime"].is_number() && server["memory"].is_number() && server["disk"].is_number(), "{server}");
}

#[tokio::test]
async fn every_call_stands_in_the_document() {
    let proxy = TestProxy::toml(TOML).start().await;
    let (_, document) = call(proxy.admin(), "GET", "/api/openapi.json", None).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
    let paths = document["paths"].as_object().unwrap();
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let fits = |template: &str, path: &str| {
        let (template, path) = (parts(template), parts(path));
        template.len() == path.len() && template.iter().zip(&path).all(|(a, b)| a == b || a.starts_with('{'))
    };
    // The two ways to write a CIDR are one.
    for &(method, path, ..) in TABLE.iter().filter(|row| row.1 != "/api/admin/blocklist/192.0.2.0/24") {
        let found = paths.iter().any(|(template, item)| {
            fits(template, path) && item.get(method.to_ascii_lowercase()).is_some_and(Value::is_object)
        });
        assert!(found, "{method} {path}");
    }
    assert!(document["paths"]["/api/events"]["get"].is_object());
    // What is served beside them is named, with the reason.
    assert!(document["info"]["description"].as_str().unwrap().contains("`/dashboard/`"), "{}", document["info"]);
    assert!(document["paths"]["/api/status"]["get"].get("security").is_none(), "no token is asked for here");
}

#[tokio::test]
async fn with_a_token_the_document_says_so() {
    let proxy = TestProxy::toml(format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"s3cret\"\n{TOML}")).start().await;
    let mut client = Client::connect(proxy.admin()).await.unwrap();
    let request = "GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n\r\n";
    client.send(request).await.unwrap();
    let document: Value = serde_json::from_slice(&client.read_response().await.unwrap().body).unwrap();
    assert!(document["components"]["securitySchemes"]["token"].is_object());
    assert!(document["paths"]["/api/status"]["get"]["security"].is_array());
    assert!(document["paths"]["/healthz"]["get"].get("security").is_none());
}

#[tokio::test]
async fn what_is_too_large_is_a_problem_too() {
    let proxy = TestProxy::toml(TOML).start().await;
    let reason = "x".repeat(300 << 10);
    let body = json!({ "reason": reason });
    let (status, problem) = call(proxy.admin(), "POST", "/api/admin/maintenance/enable", Some(body)).await;
    assert_eq!((status, &problem["status"]), (413, &json!(413)), "{problem}");
    let odd = ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/%ff/reset").await;
    assert_eq!((odd.status, odd.header("content-type")), (400, Some("application/problem+json")), "{}", odd.text());
    let (_, status) = call(proxy.admin(), "GET", "/api/maintenance/status", None).await;
    assert_eq!(status["is_active"], false);
}
