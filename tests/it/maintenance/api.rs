//! Maintenance by API, and what the status tells.

use super::{FLAG, PATIENCE, ask, json, status, switch_on, toml, visit};
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

async fn site(maintenance: &str) -> (TestProxy, FakeUpstream) {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    (TestProxy::toml(toml(&upstream, maintenance)).start().await, upstream)
}

#[tokio::test]
async fn enable_and_disable_hold_when_they_answer() {
    let (proxy, _upstream) = site("").await;
    for _ in 0..5 {
        let on = ask(&proxy, "POST", "/api/admin/maintenance/enable", "").await;
        assert_eq!((on.status, &json(&on)["is_active"]), (200, &true.into()));
        assert_eq!(visit(&proxy, "GET", "/", "").await.status, 503);
        let off = ask(&proxy, "POST", "/api/admin/maintenance/disable", "").await;
        assert_eq!((off.status, &json(&off)["is_active"]), (200, &false.into()));
        assert_eq!(visit(&proxy, "GET", "/", "").await.status, 200);
    }
}

#[tokio::test]
async fn enable_writes_what_it_was_told() {
    let (proxy, _upstream) = site("").await;
    let body = r#"{"reason":"Upgrade","until":"2130-01-31T22:00:00Z","mode":"read_only","routes":["all"]}"#;
    let status = json(&ask(&proxy, "POST", "/api/admin/maintenance/enable", body).await);
    assert_eq!(status["mode"], "read_only");
    assert_eq!(status["reason"], "Upgrade");
    assert_eq!(status["estimated_completion"], "2130-01-31T22:00:00Z");
    assert_eq!(status["routes"], serde_json::json!(["all"]));
    assert_eq!(status["by"], "api");
    assert!(proxy.folder.read(FLAG).contains("by = \"api\""));
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 200);
    assert_eq!(visit(&proxy, "POST", "/", "Content-Length: 0\r\n").await.status, 503);
    let status = super::status(&proxy).await;
    assert_eq!(status["blocked_requests"], 1);
    // Saying more does not begin anew.
    let again = json(&ask(&proxy, "POST", "/api/admin/maintenance/enable", r#"{"reason":"Still"}"#).await);
    assert_eq!((&again["started_at"], &again["blocked_requests"]), (&status["started_at"], &1.into()));
}

#[tokio::test]
async fn a_route_that_there_is_not_is_refused_by_its_name() {
    let (proxy, _upstream) = site("").await;
    for (routes, detail) in [
        (r#"["all","al"]"#, "routes: there is no route \"al\": did you mean \"all\"?"),
        (r#""checkout""#, "routes: there is no route \"checkout\": use \"all\""),
    ] {
        let body = format!(r#"{{"reason":"Upgrade","routes":{routes}}}"#);
        let refused = ask(&proxy, "POST", "/api/admin/maintenance/enable", &body).await;
        assert_eq!((refused.status, json(&refused)["detail"].as_str()), (422, Some(detail)));
    }
    assert_eq!(status(&proxy).await["is_active"], false);
    assert!(!proxy.folder.join(FLAG).exists(), "nothing was written");
}

#[tokio::test]
async fn a_flag_that_would_be_cut_when_it_is_read_is_refused() {
    let (proxy, _upstream) = site("").await;
    let paths: Vec<_> = (0..256).map(|number| format!("/{number:0300}")).collect();
    let body = serde_json::json!({ "paths": paths }).to_string();
    let refused = ask(&proxy, "POST", "/api/admin/maintenance/enable", &body).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(!proxy.folder.join(FLAG).exists(), "nothing was written");
}

#[tokio::test]
async fn one_route_is_switched_by_a_flag_of_its_own() {
    let (proxy, _upstream) = site("").await;
    let (enable, disable) = ("/api/admin/maintenance/enable", "/api/admin/maintenance/disable");
    let on = json(&ask(&proxy, "POST", &format!("{enable}?route=all"), r#"{"reason":"Moving"}"#).await);
    assert_eq!((&on["is_active"], &on["routes"]), (&true.into(), &serde_json::json!(["all"])));
    assert_eq!((&on["flags"][0]["route"], &on["flags"][0]["reason"]), (&"all".into(), &"Moving".into()));
    assert!(!proxy.folder.join(FLAG).exists() && proxy.folder.read("state/maintenance.d/all.flag").contains("Moving"));
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 503);
    // Neither flag is the other's.
    let both = json(&ask(&proxy, "POST", enable, "").await);
    let whose: Vec<_> = both["flags"].as_array().unwrap().iter().map(|flag| flag["route"].clone()).collect();
    assert_eq!(whose, [serde_json::Value::Null, "all".into()]);
    let still = json(&ask(&proxy, "POST", disable, "").await);
    assert_eq!((&still["is_active"], &still["flags"][0]["route"]), (&true.into(), &"all".into()));
    let off = json(&ask(&proxy, "POST", &format!("{disable}?route=all"), "").await);
    assert_eq!((&off["is_active"], &off["flags"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 200);
    for (query, status) in [("route=none", 404), ("route=..%2F..%2Fetc", 404), ("route=", 404), ("rout=all", 400)] {
        for path in [enable, disable] {
            assert_eq!(ask(&proxy, "POST", &format!("{path}?{query}"), "").await.status, status, "{query}");
        }
    }
    assert_eq!(proxy.folder.path().join("state/maintenance.d").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn an_emergency_of_one_route_is_refused_and_is_none_of_everything() {
    let (proxy, _upstream) = site("").await;
    let refused = ask(&proxy, "POST", "/api/maintenance/emergency?route=all", r#"{"reason":"Breach"}"#).await;
    assert_eq!((refused.status, json(&refused)["detail"].as_str()), (400, Some("this call takes no parameters")));
    assert_eq!(status(&proxy).await["is_active"], false);
    let on = ask(&proxy, "POST", "/api/maintenance/emergency", r#"{"reason":"Breach"}"#).await;
    assert_eq!((on.status, &json(&on)["mode"]), (200, &"emergency".into()));
}

#[tokio::test]
async fn the_flag_of_a_route_that_is_gone_can_be_removed() {
    let (proxy, _upstream) = site("").await;
    switch_on(&proxy, "").await;
    proxy.folder.write("state/maintenance.d/gone.flag", "");
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["flags"][1]["route"] == "gone").await);
    let disable =
        async |name: &str| ask(&proxy, "POST", &format!("/api/admin/maintenance/disable?route={name}"), "").await;
    for name in ["..%2Fmaintenance", "%2e%2e%2fmaintenance", ".", "gone%00", "go"] {
        assert_eq!(disable(name).await.status, 404, "{name}");
    }
    assert!(proxy.folder.join(FLAG).exists());
    let enable = ask(&proxy, "POST", "/api/admin/maintenance/enable?route=gone", "").await;
    assert_eq!(enable.status, 404, "it has no requests");
    let off = disable("gone").await;
    assert_eq!((off.status, json(&off)["flags"].as_array().unwrap().len()), (200, 1), "{}", off.text());
    assert_eq!(proxy.folder.path().join("state/maintenance.d").read_dir().unwrap().count(), 0);
    assert_eq!(disable("gone").await.status, 404);
}

#[tokio::test]
async fn one_route_and_a_list_of_routes_are_refused_at_once() {
    let (proxy, _upstream) = site("").await;
    let begun = std::time::Instant::now();
    let refused = ask(&proxy, "POST", "/api/admin/maintenance/enable?route=all", r#"{"routes":["all"]}"#).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("routes: has no meaning beside ?route="), "{}", refused.text());
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "it waits for nothing");
    assert!(!proxy.folder.join("state/maintenance.d/all.flag").exists());
}

#[tokio::test]
async fn a_mistake_changes_nothing() {
    let (proxy, _upstream) = site("").await;
    for (path, body) in [
        ("/api/admin/maintenance/enable", r#"{"until":"soon"}"#),
        ("/api/admin/maintenance/enable", "nonsense"),
        ("/api/maintenance/emergency", r#"{"grace_period":"long"}"#),
    ] {
        let answer = ask(&proxy, "POST", path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(status(&proxy).await["is_active"], false);
    assert_eq!(ask(&proxy, "POST", "/api/admin/maintenance/disable", "").await.status, 200, "off stays off");
}

#[tokio::test]
async fn an_end_that_has_passed_is_refused_and_ends_nothing() {
    let (proxy, _upstream) = site("").await;
    let enable = "/api/admin/maintenance/enable";
    assert_eq!(ask(&proxy, "POST", enable, r#"{"reason":"Upgrade","grace":"1d"}"#).await.status, 200);
    for body in [r#"{"until":"2020-01-01T00:00:00Z"}"#, r#"{"until":"2020-01-01T00:00:00Z","auto_end":true}"#] {
        for path in [enable, &format!("{enable}?route=all")] {
            let refused = ask(&proxy, "POST", path, body).await;
            let detail = "the end, 2020-01-01T00:00:00Z, has passed";
            assert_eq!((refused.status, json(&refused)["detail"].as_str()), (422, Some(detail)), "{path} {body}");
        }
    }
    let status = status(&proxy).await;
    assert_eq!((&status["is_active"], &status["reason"]), (&true.into(), &"Upgrade".into()));
}

#[tokio::test]
async fn the_status_lists_windows_and_their_metrics_wait_for_a_run() {
    let window = "announce = \"30d\"\n[[maintenance.window]]\nname = \"yearly\"\nschedule = \"0 3 1 1 *\"\n\
                  duration = \"2h\"\ntimezone = \"Asia/Tokyo\"\nreason = \"Inventory\"\n";
    let (proxy, _upstream) = site(window).await;
    let upcoming = &status(&proxy).await["upcoming"][0];
    assert_eq!((&upcoming["name"], &upcoming["reason"]), (&"yearly".into(), &"Inventory".into()));
    assert!(upcoming["start"].as_str().unwrap().ends_with("-12-31T18:00:00Z"), "{upcoming}");
    assert!(upcoming["end"].as_str().unwrap().ends_with("-12-31T20:00:00Z"), "{upcoming}");
}

#[tokio::test]
async fn a_window_that_is_due_begins_by_itself_and_is_by_the_window() {
    let window = "[[maintenance.window]]\nname = \"always\"\nschedule = \"* * * * *\"\nduration = \"1h\"\n";
    let (proxy, _upstream) = site(window).await;
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["by"] == "window:always").await);
    let began = "flagstone_maintenance_last_run_timestamp_seconds{window=\"always\"} ";
    let shows = async || ask(&proxy, "GET", "/metrics", "").await.text().contains(began);
    assert!(eventually_async(PATIENCE, shows).await, "while it runs, too");
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 503);
}

#[tokio::test]
async fn what_the_status_says_of_the_first_flag_is_all_of_that_flag() {
    let (proxy, _upstream) = site("").await;
    switch_on(&proxy, "routes = [\"all\"]\nuntil = \"2130-01-31T22:00:00Z\"").await;
    proxy.folder.write("state/maintenance.d/all.flag", "until = \"2020-01-31T22:00:00Z\"");
    let mut told = serde_json::Value::Null;
    let both = async || {
        told = status(&proxy).await;
        told["flags"].as_array().unwrap().len() == 2
    };
    assert!(eventually_async(PATIENCE, both).await);
    assert_eq!((&told["estimated_completion"], &told["overdue"]), (&"2130-01-31T22:00:00Z".into(), &false.into()));
    assert_eq!((&told["flags"][0]["overdue"], &told["flags"][1]["overdue"]), (&false.into(), &true.into()));
    assert_eq!(told["routes"], serde_json::json!(["all"]), "each once");
}

#[tokio::test]
async fn overdue_maintenance_is_told() {
    let (proxy, _upstream) = site("").await;
    switch_on(&proxy, "until = \"2020-01-01T00:00:00Z\"\n").await;
    assert_eq!(status(&proxy).await["overdue"], true);
    let scrape = ask(&proxy, "GET", "/metrics", "").await.text();
    let line = scrape.lines().find(|line| line.starts_with("flagstone_maintenance_overdue_seconds{scope=\"global\"}"));
    let seconds = line.and_then(|line| line.rsplit_once(' ')).map(|(_, seconds)| seconds.parse::<u64>().unwrap());
    assert!(seconds.unwrap() > 1_000_000, "{scrape}");
    assert!(scrape.contains("flagstone_maintenance_active{scope=\"global\"} 1"), "{scrape}");
    assert_eq!(visit(&proxy, "GET", "/", "").await.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn auto_end_ends_at_until() {
    let (proxy, _upstream) = site("").await;
    let soon = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 2).unwrap();
    switch_on(&proxy, &format!("until = \"{soon}\"\nauto_end = true\n")).await;
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["is_active"] == false).await);
    assert!(!proxy.folder.join(FLAG).exists());
    assert!(jiff::Timestamp::now() >= soon);
}

#[tokio::test]
async fn a_flag_for_a_route_that_is_not_configured_makes_no_series() {
    let (proxy, _upstream) = site("").await;
    proxy.folder.write("state/maintenance.d/ghost.flag", "");
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["is_active"] == true).await);
    let scrape = ask(&proxy, "GET", "/metrics", "").await.text();
    assert!(!scrape.contains("ghost"), "{scrape}");
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 200);
}
