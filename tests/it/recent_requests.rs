//! Which requests `/api/requests` remembers, and what it says of them.

use serde_json::{Value, json};

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const LIMITED: &str = "[[route]]\nname = \"shop\"\npath = [\"/shop\"]\nlimits = [\"tight\"]\nrespond = {}\n\
                       [[route]]\nname = \"lab\"\npath = [\"/lab\"]\nfeature = \"lab\"\nrespond = {}\n\
                       [limit.tight]\nrate = \"1/1h\"\n[features]\nlab = false\n";

async fn requests(proxy: &TestProxy, query: &str) -> Vec<Value> {
    let answer = admin::json(proxy.admin(), &format!("/api/requests{query}")).await;
    answer["requests"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

#[tokio::test]
async fn a_refusal_is_told_with_the_policy_that_decided() {
    let proxy = TestProxy::toml(LIMITED).start().await;
    for path in ["/shop", "/shop?q=1", "/lab", "/nowhere"] {
        client::get(proxy.address(), path).await.unwrap();
    }
    let all = requests(&proxy, "").await;
    let told: Vec<_> = all.iter().map(|one| (&one["reason"], &one["policy"]["kind"], &one["policy"]["name"])).collect();
    assert_eq!(
        told,
        [
            (&json!("no_route"), &json!("route"), &Value::Null),
            (&json!("feature_off"), &json!("feature"), &json!("lab")),
            (&json!("rate_limited"), &json!("limit"), &json!("tight")),
        ],
        "the latest first, and none that went well"
    );
    let limited = &requests(&proxy, "?reason=rate_limited").await[..];
    assert_eq!(limited.len(), 1);
    let limited = &limited[0];
    assert_eq!((&limited["client"], &limited["route"]), (&json!("127.0.0.1"), &json!("shop")));
    assert_eq!((&limited["status"], &limited["target"]), (&json!(429), &json!("/shop?q=1")));
    assert!(limited["durationMs"].is_number() && limited["time"].is_string(), "{limited}");
    let id = limited["requestId"].as_str().unwrap();
    assert_eq!(&requests(&proxy, &format!("?id={id}")).await[0], limited, "by the id that the client was told");
}

#[tokio::test]
async fn what_the_app_did_wrong_is_told_too() {
    let app = FakeUpstream::http1().route("/", "fine").start().await;
    let dead = "[upstream.dead]\nendpoints = [\"127.0.0.1:1\"]\n[[route]]\nname = \"dead\"\npath = [\"/x\"]\nupstream = \"dead\"\n";
    let proxy = TestProxy::before(&app, dead, "").start().await;
    client::get(proxy.address(), "/").await.unwrap();
    let mut browser = Client::connect(proxy.address()).await.unwrap();
    browser.request("GET", "/x", "Accept: text/html\r\n").await.unwrap();
    let failed = browser.read_response().await.unwrap();
    let id = failed.header("x-request-id").unwrap();
    assert!(failed.text().contains(&format!("Request ID: {id}<")), "{}", failed.text());
    let told = &requests(&proxy, &format!("?id={id}")).await[0];
    assert_eq!((&told["reason"], &told["upstream"]), (&json!("connect_failed"), &json!("dead")), "{told}");
    assert_eq!(told["policy"], json!({ "kind": "upstream", "name": "dead" }));
    assert_eq!(requests(&proxy, "").await.len(), 1, "what went well is not kept");
}

#[tokio::test]
async fn the_time_of_one_endpoint_is_not_told_of_another() {
    let bad = FakeUpstream::http1().route("/", Reply::status(503, "bad")).start().await;
    let dead = "127.0.0.1:1";
    let proxy = TestProxy::toml(format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\", \"{dead}\"]\n\
         balance = \"round_robin\"\nejection = {{ failures = 0 }}\nbreaker = {{ enabled = false }}\n\
         retry = {{ on = [\"502-504\", \"connect\"] }}\n",
        bad.endpoint()
    ));
    let proxy = proxy.start().await;
    for _ in 0..4 {
        client::get(proxy.address(), "/").await.unwrap();
    }
    let all = requests(&proxy, "").await;
    assert!(!bad.requests().is_empty() && all.iter().any(|told| told["endpoint"] == dead), "{all:?}");
    for told in all {
        assert_eq!(told["upstreamMs"].is_null(), told["endpoint"] == dead, "{told}");
    }
}

#[tokio::test]
async fn maintenance_names_its_scope_and_a_bad_head_its_bound() {
    let proxy = TestProxy::toml(LIMITED).start().await;
    admin::call(proxy.admin(), "POST", "/api/admin/maintenance/enable", None).await;
    client::get(proxy.address(), "/shop").await.unwrap();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 400);
    assert_eq!(
        requests(&proxy, "?reason=maintenance").await[0]["policy"],
        json!({ "kind": "maintenance", "name": "global" })
    );
    assert_eq!(requests(&proxy, "?reason=bad_request").await[0]["policy"]["kind"], "bounds");
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_decides_itself() {
    let app = FakeUpstream::http1().start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/upload", "Content-Length: 1000\r\n").await.unwrap();
    client.send("half").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    client.reset();
    proxy.log_line("POST /upload ").await;
    let told = &requests(&proxy, "?status=499").await[0];
    assert_eq!((&told["reason"], &told["policy"]["kind"]), (&Value::Null, &json!("client")), "{told}");
}

#[tokio::test]
async fn only_what_is_asked_for_and_only_what_can_be_asked() {
    let proxy = TestProxy::toml(LIMITED).start().await;
    for _ in 0..5 {
        client::get(proxy.address(), "/nowhere").await.unwrap();
    }
    assert_eq!(requests(&proxy, "?limit=2").await.len(), 2);
    assert_eq!(requests(&proxy, "?status=404&client=127.0.0.1").await.len(), 5);
    assert_eq!(requests(&proxy, "?route=shop").await.len(), 0);
    for query in ["?limit=x", "?limit=1001", "?nothing=1", "?status=-1"] {
        let (status, problem) = admin::call(proxy.admin(), "GET", &format!("/api/requests{query}"), None).await;
        assert_eq!(status, 400, "{query}: {problem}");
    }
}

#[tokio::test]
async fn the_command_line_tells_why_by_the_clients_id() {
    let proxy = TestProxy::toml(LIMITED).start().await;
    let mut last = client::get(proxy.address(), "/shop").await.unwrap();
    while last.status != 429 {
        last = client::get(proxy.address(), "/shop?q=1").await.unwrap();
    }
    let admin = proxy.admin().to_string();
    let explain = async |id: &str, more: &[&str]| {
        let arguments = ["explain", "--request-id", id, "--admin", &admin];
        Flagstone::run(arguments.iter().chain(more)).await
    };
    let id = last.header("x-request-id").unwrap();
    let told = explain(id, &[]).await;
    assert!(told.status.success(), "{}", told.stderr);
    for part in
        ["GET test/shop?q=1\n", "client       127.0.0.1\n", "decided by   limit tight\n", "=> 429 rate_limited\n"]
    {
        assert!(told.stdout.contains(part), "{part} in {}", told.stdout);
    }
    let json: Value = serde_json::from_str(&explain(id, &["--json"]).await.stdout).unwrap();
    assert_eq!(json["requestId"], id);
    let unknown = explain("0123", &[]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("no refused or failed request has the id 0123"), "{}", unknown.stderr);
    assert_eq!(explain(id, &["/shop"]).await.status.code(), Some(2), "one or the other");
}
