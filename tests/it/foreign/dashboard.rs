//! The dashboard in a real browser: what it shows, what it does, and that everybody can use it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::browser::Browser;
use super::site::{Site, config, serve};
use super::{HEAD, LONG};
use crate::support::admin::{self, call};
use crate::support::client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::npm::npm_package;
use crate::support::poll::eventually_async;
use crate::support::process::{Flagstone, Signal};
use crate::support::relay::Relay;

const AXE: (&str, &str) = ("axe-core", "4.14.1");
/// As the WebDriver standard writes it.
const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const ESCAPE: &str = "\u{e00c}";

/// How long the certificate lasts.
const DAYS: i32 = 90;

/// A running site, and the dashboard open in a browser.
struct Opened {
    browser: Browser,
    site: Site,
}

impl Opened {
    /// # Errors
    /// That the browser is not installed.
    async fn start() -> Result<Self, String> {
        program("curl")?;
        let opened = Self { browser: Browser::start().await?, site: Site::start(1, DAYS).await };
        opened.visit(opened.site.admin).await;
        Ok(opened)
    }

    async fn visit(&self, admin: SocketAddr) {
        self.browser.visit(&format!("http://{admin}/")).await;
        self.browser.until(LIVE).await;
    }

    /// The status by API holds this, soon.
    async fn status(&self, holds: impl Fn(&Value) -> bool) {
        let mut status = Value::Null;
        let held = eventually_async(LONG, async || {
            status = admin::json(self.site.admin, "/api/status").await;
            holds(&status)
        });
        assert!(held.await, "{status:#}");
    }
}

/// The page is up and told so by a tick of the stream.
const LIVE: &str = "document.getElementById('live').textContent === 'Live' && !document.body.hasAttribute('data-stale')
    && document.getElementById('health').textContent !== 'Loading'";

#[tokio::test]
async fn the_switch_shows_what_holds_and_changes_it() {
    let Opened { browser, site: Site { flagstone, web, .. } } = &or_left_out!(Opened::start().await);
    let is_on = |on: bool| format!("document.getElementById('maintenance-switch').ariaChecked === '{on}'");
    browser.until(&is_on(false)).await;
    browser.click("#maintenance-switch").await;
    browser.write("#on-reason", "Moving <b>house</b>").await;
    browser.click("#switch-on [type=submit]").await;
    browser.until(&is_on(true)).await;
    browser.until("document.getElementById('maintenance').innerText.includes('Moving <b>house</b>')").await;
    let refused = client::get(*web, "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("maintenance")));
    assert!(refused.text().contains("Moving <b>house</b>"), "{}", refused.text());

    // Whoever removes the flag ends maintenance, and the page says so by itself.
    flagstone.folder.remove("state/maintenance.flag");
    browser.until(&is_on(false)).await;
    flagstone.folder.write("state/maintenance.flag", "mode = \"read_only\"\n");
    browser.until(&is_on(true)).await;
    browser.click("#maintenance-switch").await;
    browser.click("#switch-off [type=submit]").await;
    browser.until(&is_on(false)).await;
    assert_eq!(client::get(*web, "/").await.unwrap().status, 200);
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:?}");
    let elsewhere = "performance.getEntriesByType('resource').map(one => one.name).filter(name => !name.startsWith(location.origin))";
    assert_eq!(browser.run(&format!("return {elsewhere}")).await, json!([]), "no request leaves for another place");
}

#[tokio::test]
async fn one_route_is_closed_and_opened_while_the_rest_goes_on() {
    let Opened { browser, site: Site { flagstone, web, .. } } = &or_left_out!(Opened::start().await);
    let rows = "document.getElementById('maintenance-routes').innerText";
    let offered = "[...document.getElementById('on-route').options].map(one => one.value).join()";
    browser.click("#maintenance-route").await;
    browser.until(&format!("document.getElementById('switch-on').open && {offered} === 'site,orders'")).await;
    browser.run("document.getElementById('on-route').value = 'orders'").await;
    browser.write("#on-reason", "New <b>checkout</b>").await;
    browser.click("#switch-on [type=submit]").await;
    browser.until(&format!("{rows}.includes('orders') && {rows}.includes('New <b>checkout</b>')")).await;
    browser.until("document.getElementById('maintenance-switch').ariaChecked === 'false'").await;
    browser
        .until("document.getElementById('maintenance-state').innerText === 'The site is open, but for 1 route'")
        .await;
    assert!(flagstone.folder.read("state/maintenance.d/orders.flag").contains("New <b>checkout</b>"));
    let refused = client::get(*web, "/orders").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("maintenance")));
    assert!(refused.text().contains("New <b>checkout</b>"), "{}", refused.text());
    assert_eq!(client::get(*web, "/").await.unwrap().status, 200);

    // Good news goes away by itself; until then it may lie on what is to be clicked.
    let read = "document.querySelectorAll('#notices button').forEach(button => button.click())";
    browser.run(read).await;
    // What others do to a route is shown as well; what is closed is not offered again.
    flagstone.folder.write("state/maintenance.d/site.flag", "reason = \"by hand\"\n");
    browser.until(&format!("{rows}.includes('by hand')")).await;
    flagstone.folder.remove("state/maintenance.d/site.flag");
    browser.until(&format!("!{rows}.includes('by hand')")).await;
    browser.click("#maintenance-route").await;
    browser.until(&format!("document.getElementById('switch-on').open && {offered} === 'site'")).await;
    browser.click("#switch-on [data-close]").await;

    // Switching everything on and off leaves the route alone.
    browser.click("#maintenance-switch").await;
    browser.until("document.getElementById('on-route').hidden").await;
    browser.click("#switch-on [type=submit]").await;
    browser.until("document.getElementById('maintenance-switch').ariaChecked === 'true'").await;
    browser.run(read).await;
    browser.click("#maintenance-switch").await;
    browser.until("document.getElementById('switch-off-text').innerText.includes('but for orders')").await;
    browser.click("#switch-off [type=submit]").await;
    browser.until("document.getElementById('maintenance-switch').ariaChecked === 'false'").await;
    assert_eq!(client::get(*web, "/orders").await.unwrap().status, 503);

    browser.run(read).await;
    browser.click("[aria-label='End the maintenance of orders']").await;
    browser.click("#confirm-go").await;
    browser.until(&format!("{rows} === ''")).await;
    assert_eq!(client::get(*web, "/orders").await.unwrap().text(), "oh");
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:?}");
}

#[tokio::test]
async fn an_emergency_is_confirmed_twice() {
    let opened = or_left_out!(Opened::start().await);
    let Opened { browser, site: Site { admin, .. } } = &opened;
    browser.click("#emergency").await;
    browser.write("#emergency-reason", "Breach").await;
    browser.click("#emergency-go").await;
    browser.until("!document.getElementById('emergency-sure').hidden").await;
    // Without the tick in its box the second button does nothing.
    browser.click("#emergency-go").await;
    assert_eq!(admin::json(*admin, "/api/maintenance/status").await["is_active"], false);
    browser.click("#emergency-confirmed").await;
    browser.click("#emergency-go").await;
    opened.status(|status| status["maintenance"]["mode"] == "emergency").await;
    browser.until("document.getElementById('maintenance').innerText.includes('Breach')").await;
}

#[tokio::test]
async fn a_breaker_is_reset_and_a_limit_overridden() {
    let opened = or_left_out!(Opened::start().await);
    let Opened { browser, site: Site { web, .. } } = &opened;
    client::get(*web, "/orders").await.unwrap();
    client::get(*web, "/orders?again").await.unwrap();
    let breaker = |state: &str| {
        format!("document.querySelector('article[aria-label=app] .breaker strong').textContent === '{state}'")
    };
    browser.until(&breaker("open")).await;
    let refused = "document.getElementById('refused-rows').innerText";
    browser.until(&format!("{refused}.includes('circuit_open · app') && {refused}.includes('/orders?again')")).await;
    // What needs attention stands above, and moves the rest of the page when it comes.
    browser.until("document.body.innerText.includes('app is down')").await;
    browser.click("[aria-label='Reset the breaker of app']").await;
    browser.until(&breaker("closed")).await;
    opened.status(|status| status["circuitBreakers"]["app"]["state"] == "CLOSED").await;

    browser.click("[aria-label='Set limit per_ip']").await;
    browser.click("[data-times='5']").await;
    browser.click("#surge [type=submit]").await;
    browser.until("document.getElementById('limit-rows').innerText.includes('5000/1m, burst 500')").await;
    opened.status(|status| status["limits"]["per_ip"]["override"]["rate"] == "5000/1m").await;
    // What cannot be is said where it was asked for, and nothing is lost.
    browser.click("[aria-label='Set limit per_ip']").await;
    browser.run("document.getElementById('surge-rate').value = ''").await;
    browser.write("#surge-rate", "often").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#surge .error').textContent.startsWith('rate: ')").await;
    browser.click("#surge [data-close]").await;
    browser.click("[aria-label='Clear the override of per_ip']").await;
    opened.status(|status| status["limits"]["per_ip"]["override"].is_null()).await;
}

#[tokio::test]
async fn events_appear_as_they_happen_and_can_be_filtered() {
    let Opened { browser, site: Site { admin, web, .. } } = &or_left_out!(Opened::start().await);
    let list = "document.getElementById('event-list').innerText";
    call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    browser.until(&format!("{list}.includes('Circuit breaker opened')")).await;
    call(*admin, "POST", "/api/admin/maintenance/enable", None).await;
    browser.until(&format!("{list}.includes('Maintenance mode activated')")).await;
    browser.write("#event-text", "breaker app").await;
    browser.until(&format!("{list}.includes('breaker') && !{list}.includes('Maintenance')")).await;
    // Traffic is drawn as it happens, too.
    client::get(*web, "/").await.unwrap();
    browser.until("[...document.querySelectorAll('#routes th')].some(row => row.innerText === 'site')").await;
    browser.until("document.querySelectorAll('.canvas canvas').length === 3").await;
}

/// Figures that change and events that come every second are for eyes: read out, they would drown all else.
#[tokio::test]
async fn a_screen_reader_is_not_told_something_every_second() {
    let Opened { browser, site: Site { admin, web, .. } } = &or_left_out!(Opened::start().await);
    let charts = "[...document.querySelectorAll('#charts output')].map(one => one.ariaLive).join()";
    browser.until(&format!("{charts} === 'off,off,off,off,off'")).await;

    let spoken = "document.getElementById('announcer').innerText";
    let lines = "document.getElementById('event-list').innerText.split('BLOCKED').length";
    call(*admin, "POST", "/api/admin/blocklist", Some(json!({ "cidr": "127.0.0.1" }))).await;
    assert_eq!(client::get(*web, "/").await.unwrap().status, 403);
    browser.until(&format!("{spoken}.startsWith('BLOCKED')")).await;
    call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    browser.until(&format!("!{spoken}.startsWith('BLOCKED')")).await;
    for line in 3..5 {
        assert_eq!(client::get(*web, "/").await.unwrap().status, 403);
        browser.until(&format!("{lines} >= {line}")).await;
    }
    let last = browser.run(&format!("return {spoken}")).await;
    assert!(!last.as_str().is_some_and(|last| last.contains("BLOCKED")), "{last}");
}

/// One second alone makes no line; and what the charts say of an only route is what the table says of it.
#[tokio::test]
async fn a_single_request_is_drawn_and_the_figures_agree() {
    let Opened { browser, site: Site { web, .. } } = &or_left_out!(Opened::start().await);
    let drawn = "(() => {
        const canvas = document.querySelectorAll('#charts canvas')[1];
        const { width, height } = canvas;
        const style = getComputedStyle(document.body).getPropertyValue('--chart-1').trim();
        const [r, g, b] = [1, 3, 5].map(at => parseInt(style.slice(at, at + 2), 16));
        const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
        let found = 0;
        for (let at = 0; at < data.length; at += 4) {
            found += data[at + 3] > 200 && Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 30;
        }
        return found;
    })()";
    browser.until("document.querySelectorAll('#charts canvas').length === 3").await;
    assert_eq!(browser.run(&format!("return {drawn}")).await, 0);
    assert_eq!(client::get(*web, "/").await.unwrap().status, 200);
    browser.until(&format!("{drawn} > 0")).await;
    let agree = "(() => {
        const charts = [...document.querySelectorAll('#charts figure')][1].querySelectorAll('output');
        const [p99, p95, p50] = [...charts].map(one => one.innerText);
        const cells = [...document.querySelectorAll('#routes tr td')].map(one => one.innerText);
        return [p50, p95, p99].join() === cells.slice(1, 4).join() && p50.endsWith('ms');
    })()";
    browser.until(agree).await;
}

#[tokio::test]
async fn an_access_log_that_loses_lines_is_told_of() {
    let opened = or_left_out!(Opened::start().await);
    let (browser, folder) = (&opened.browser, &opened.site.flagstone.folder);
    std::os::unix::fs::symlink("/dev/full", folder.join("full.log")).unwrap();
    folder.write("flagstone.toml", folder.read("flagstone.toml").replace("\"access.log\"", "\"full.log\""));
    opened.status(|status| status["config"]["generation"] == 2).await;
    // What it holds back until there is room, a mebibyte, is soon full of them.
    let target = format!("/?{}", "x".repeat(6000));
    for _ in 0..400 {
        client::get(opened.site.web, &target).await.unwrap();
    }
    let told = "The access log is losing lines: no space left on device";
    browser.until(&format!("document.getElementById('attention').innerText.includes('{told}')")).await;
}

#[tokio::test]
async fn a_refused_reload_says_what_is_wrong_with_the_file() {
    let Opened { browser, site: Site { flagstone, .. } } = &or_left_out!(Opened::start().await);
    let good = flagstone.folder.read("flagstone.toml");
    flagstone.folder.write("flagstone.toml", good.replace("failures = 1", "failure = 1"));
    browser.click("#reload").await;
    browser.until("document.getElementById('notices').innerText.includes('The configuration was refused')").await;
    let problems = "document.getElementById('reload-problems').innerText";
    browser.until(&format!("{problems}.includes('flagstone.toml:') && {problems}.includes('failures')")).await;
    browser.until("document.getElementById('attention').innerText.includes('The last reload was refused')").await;
    // What failed is told until it is read, or until the same has succeeded. It may lie on the button.
    flagstone.folder.write("flagstone.toml", good.replace("failures = 1", "failures = 7"));
    browser.run("document.getElementById('reload').click()").await;
    let notices = "document.getElementById('notices').innerText";
    browser.until(&format!("{notices}.includes('serves: ') && !{notices}.includes('refused')")).await;
    browser.click("#notices button").await;
    browser.until(&format!("{notices} === ''")).await;
    browser.until(&format!("{problems} === ''")).await;
}

#[tokio::test]
async fn a_lost_connection_is_shown_and_found_again_by_itself() {
    let opened = or_left_out!(Opened::start().await);
    let Opened { browser, site: Site { admin, flagstone, .. } } = &opened;
    let relay = Relay::start(*admin).await;
    opened.visit(relay.address()).await;
    let stale = "document.body.hasAttribute('data-stale') && document.getElementById('stale').innerText.includes('Connection lost')";
    relay.cut();
    browser.until(stale).await;
    // What happens meanwhile is told afterwards.
    call(*admin, "POST", "/api/admin/maintenance/enable", None).await;
    relay.mend(*admin);
    browser.until(LIVE).await;
    browser.until("document.getElementById('event-list').innerText.includes('Maintenance mode activated')").await;

    // A process that hangs breaks no connection, and is noticed all the same.
    flagstone.process.signal(Signal::STOP);
    browser.until(stale).await;
    flagstone.process.signal(Signal::CONT);
    browser.until(LIVE).await;

    // Another process at the same place: its own events are all news.
    let mut next = serve(&config("127.0.0.1:9", 1), DAYS).await;
    let next_admin = next.admin().await;
    relay.cut();
    browser.until(stale).await;
    relay.mend(next_admin);
    browser.until(LIVE).await;
    let pid = next.process.id();
    browser.until(&format!("document.getElementById('configuration').innerText.includes('pid {pid},')")).await;
    browser.until("document.getElementById('maintenance-switch').ariaChecked === 'false'").await;
}

/// As what a flag covers is bound to: whoever reads that the site is closed looks no further.
#[tokio::test]
async fn maintenance_of_a_part_is_not_shown_as_of_the_whole() {
    let Opened { browser, site: Site { flagstone, .. } } = &or_left_out!(Opened::start().await);
    let state = "document.getElementById('maintenance-state').innerText";
    flagstone.folder.write("state/maintenance.flag", "hosts = [\"a.example\"]\npaths = [\"/cart\", \"=/pay\"]\n");
    browser.until(&format!("{state} === 'In maintenance: a.example · /cart, =/pay'")).await;
    flagstone.folder.replace("state/maintenance.flag", "routes = [\"orders\"]\n");
    browser.until(&format!("{state} === 'In maintenance: orders'")).await;
    flagstone.folder.replace("state/maintenance.flag", "");
    browser.until(&format!("{state} === 'The site is in maintenance'")).await;
    flagstone.folder.write("state/maintenance.d/orders.flag", "paths = [\"/orders/new\"]\n");
    browser.until("document.getElementById('maintenance-routes').innerText.includes('/orders/new')").await;
}

#[tokio::test]
async fn a_time_of_another_day_is_told_with_its_day() {
    let Opened { browser, .. } = &or_left_out!(Opened::start().await);
    let told =
        browser.run("return import('/dashboard/format.js').then(({ stamp }) => [stamp(0), stamp(Date.now())])").await;
    let told: Vec<String> = serde_json::from_value(told).unwrap();
    assert!(told[0].contains(" Jan, ") || told[0].contains(" Dec, "), "{told:?}");
    assert_eq!(told[1].len(), "14:03:22".len(), "{told:?}");
    // The list of events has them so.
    browser.run("import('/dashboard/events.js').then(({ add }) => add({ key: 'x-1', time: '1999-12-31T12:00:00Z', level: 'INFO', message: 'Old' }))").await;
    browser.until("document.getElementById('event-list').innerText.includes('31 Dec, ')").await;
}

/// As one that was opened in a tab behind: it holds none of the few streams that a browser allows.
#[tokio::test]
async fn a_page_that_nobody_has_seen_yet_asks_for_nothing() {
    let Opened { browser, site: Site { admin, .. } } = &or_left_out!(Opened::start().await);
    let source = "let hidden = true; \
        Object.defineProperty(document, 'hidden', { get: () => hidden }); \
        window.look = () => { hidden = false; document.dispatchEvent(new Event('visibilitychange')); }; \
        window.streams = []; \
        window.EventSource = class extends EventSource { constructor(url) { super(url); streams.push(url); } };";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source })).await;
    browser.visit(&format!("http://{admin}/")).await;
    browser.until("performance.getEntriesByType('resource').some(one => one.name.endsWith('api/maintenance/status') && one.responseEnd > 0)").await;
    browser.run("look()").await;
    browser.until(LIVE).await;
    assert_eq!(browser.run("return streams.length").await, 1, "the one that begins when it is seen");
}

#[tokio::test]
async fn of_a_long_block_list_the_first_are_shown_and_the_rest_counted() {
    let Opened { browser, site: Site { admin, .. } } = &or_left_out!(Opened::start().await);
    for host in 1..=203 {
        call(*admin, "POST", "/api/admin/blocklist", Some(json!({ "cidr": format!("192.0.2.{host}") }))).await;
    }
    browser
        .until("document.getElementById('blocked').innerText.includes('and 3 more: flagstone blocked lists all')")
        .await;
    assert_eq!(browser.run("return document.getElementById('blocked-list').childElementCount").await, 200);
}

/// Ends and ages are by the server's clock, which is right more often than that of a laptop.
#[tokio::test]
async fn a_reader_whose_clock_is_wrong_is_shown_and_does_what_is_right() {
    let Opened { browser, site: Site { admin, .. } } = &or_left_out!(Opened::start().await);
    let source = "const ahead = 600_000, Clock = Date; \
        window.Date = class extends Clock { \
            constructor(...given) { if (given.length) super(...given); else super(Clock.now() + ahead); } \
            static now() { return Clock.now() + ahead; } \
        };";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source })).await;
    browser.visit(&format!("http://{admin}/")).await;
    browser.until(LIVE).await;
    // What is new is read out, by whatever followed it as well.
    call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    browser.until("document.getElementById('announcer').innerText !== ''").await;

    browser.click("#maintenance-switch").await;
    browser.run("const ends = document.getElementById('on-ends'); ends.value = '300'; ends.dispatchEvent(new Event('change'))").await;
    browser.click("#switch-on [type=submit]").await;
    browser.until("document.getElementById('maintenance-switch').ariaChecked === 'true'").await;
    let status = admin::json(*admin, "/api/maintenance/status").await;
    let moment = |key: &str| status[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let lasts = moment("estimated_completion").duration_since(moment("started_at")).as_secs();
    assert!((270..=310).contains(&lasts), "{lasts} s: {status:#}");
    browser.until("/in [45] min/.test(document.getElementById('maintenance-facts').innerText)").await;
}

#[tokio::test]
async fn where_there_is_nothing_to_show_the_page_says_so() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let route = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";
    let mut flagstone = Flagstone::serve_in(Folder::new(), &format!("{HEAD}{route}")).await;
    browser.visit(&format!("http://{}/", flagstone.admin().await)).await;
    browser.until(LIVE).await;
    for (section, told) in [
        ("traffic", "No request in the last 15 minutes."),
        ("upstreams", "No upstream and no probe is configured."),
        ("limits", "No limits are configured."),
        ("certificates", "No listener has TLS."),
        ("features", "The configuration has no [features]."),
        ("blocked", "Nobody is blocked."),
        ("refused", "No request has been refused or has failed."),
    ] {
        browser.until(&format!("document.getElementById('{section}').innerText.endsWith('{told}')")).await;
    }
    client::get(flagstone.address("web").await, "/").await.unwrap();
    browser.until("document.getElementById('no-traffic').hidden && document.getElementById('routes').innerText.includes('all')").await;
}

/// More of them than a fresh stream begins with: the page says how many are gone.
#[tokio::test]
async fn events_that_a_lost_connection_has_swallowed_are_counted() {
    let opened = or_left_out!(Opened::start().await);
    let Opened { browser, site: Site { admin, .. } } = &opened;
    let relay = Relay::start(*admin).await;
    opened.visit(relay.address()).await;
    call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    browser.until("document.getElementById('event-list').innerText.includes('Circuit breaker opened')").await;
    relay.cut();
    for _ in 0..160 {
        call(*admin, "POST", "/api/admin/circuit-breakers/app/reset", None).await;
        call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    }
    // By then it has begun a stream of its own; one that the browser takes up again misses nothing.
    browser.until("parseInt(document.getElementById('live').textContent.replace('No answer for', '')) > 6").await;
    relay.mend(*admin);
    browser.until(LIVE).await;
    // How many depends on what the checks of health told meanwhile.
    browser.write("#event-text", "missed count=").await;
    browser.until("document.getElementById('event-list').innerText.includes('Events were missed by this page')").await;
}

#[tokio::test]
async fn a_route_that_was_taken_out_is_no_longer_asked_for() {
    let Opened { browser, site: Site { flagstone, web, .. } } = &or_left_out!(Opened::start().await);
    client::get(*web, "/orders").await.unwrap();
    client::get(*web, "/").await.unwrap();
    let offered =
        |name: &str| format!("[...document.getElementById('route').options].some(one => one.value === '{name}')");
    browser.until(&format!("{} && {}", offered("orders"), offered("site"))).await;
    browser.run("const route = document.getElementById('route'); route.value = 'orders'; route.dispatchEvent(new Event('change'))").await;
    let route = "[[route]]\nname = \"orders\"\npath = [\"/orders\"]\nupstream = \"app\"\n";
    let config = flagstone.folder.read("flagstone.toml");
    assert!(config.contains(route));
    flagstone.folder.write("flagstone.toml", config.replace(route, ""));
    browser.until(&format!("!{} && {}", offered("orders"), offered("site"))).await;
    assert_eq!(browser.run("return document.getElementById('route').value").await, "", "that of all is shown");
}

#[tokio::test]
async fn certificates_are_told_of_by_how_they_stand() {
    let Opened { browser, .. } = &or_left_out!(Opened::start().await);
    let told = browser
        .run(
            "return import('/dashboard/state.js').then(({ learn, state }) => {
                const one = (domain, daysLeft, status) => ({ domain, names: [], issuer: '', notAfter: '2030-01-01T00:00:00Z', daysLeft, status });
                const certificates = [one('a', 90, 'OK'), one('b', 1, 'EXPIRING'), one('c', -1, 'EXPIRED'), one('d', 89, 'INVALID')];
                learn({ status: { ...state.status, certificates } });
                return document.getElementById('attention').innerText.split('\\n').filter(line => line.includes('certificate'));
            })",
        )
        .await;
    let lines =
        ["b expires in 1 day", "c has expired", "d is not valid yet"].map(|end| format!("The certificate of {end}"));
    assert_eq!(told, json!(lines));
}

/// The violations of a kind that keeps people out, as axe-core names them.
async fn violations(browser: &Browser) -> Value {
    // Its answer is a promise, which the driver waits for.
    browser
        .run(
            "return axe.run().then(({ violations }) => violations
                .filter(({ impact }) => impact === 'serious' || impact === 'critical')
                .map(({ id, nodes }) => [id, ...nodes.map(node => node.target.join(' ') + ' ' + node.failureSummary)]))",
        )
        .await
}

#[tokio::test]
async fn the_token_lets_in_and_logging_out_keeps_out() {
    or_left_out!(program("curl"));
    let browser = &or_left_out!(Browser::start().await);
    let config = config("127.0.0.1:9", 1).replace("[admin]\n", "[admin]\ntoken = \"correct-horse\"\n");
    let mut flagstone = serve(&config, DAYS).await;
    let url = format!("http://{}/", flagstone.admin().await);
    browser.visit(&url).await;
    let asks = "!document.getElementById('login').hidden && document.activeElement.id === 'token'";
    browser.until(asks).await;
    assert_eq!(browser.run("return document.getElementById('panels').hidden").await, true);
    // Nothing loads behind the question, and nothing says so.
    assert_eq!(browser.run("return document.getElementById('health').hidden").await, true);
    browser.write("#token", "wrong").await;
    browser.press(ENTER).await;
    browser.until("document.getElementById('login-error').innerText === 'This is not the token.'").await;
    browser.run("document.getElementById('token').value = ''").await;
    browser.write("#token", "correct-horse").await;
    browser.press(ENTER).await;
    browser.until(LIVE).await;
    assert_eq!(browser.run("return document.activeElement.id").await, "main", "the keyboard goes on from the top");
    // The cookie is for no script, and holds for the next visit, its event stream too.
    assert_eq!(browser.run("return document.cookie").await, "");
    browser.visit(&url).await;
    browser.until(LIVE).await;
    browser.until("document.getElementById('event-list').innerText.includes('UNAUTHORIZED')").await;
    // Another token asks again, and what is open is in nobody's way.
    browser.click("#maintenance-switch").await;
    browser.until("document.getElementById('switch-on').open").await;
    flagstone.folder.write("flagstone.toml", config.replace("correct-horse", "battery-staple"));
    browser.until(asks).await;
    browser.write("#token", "battery-staple").await;
    browser.press(ENTER).await;
    browser.until(LIVE).await;
    browser.click("#logout").await;
    browser.until(asks).await;
}

#[tokio::test]
async fn everybody_can_use_it() {
    let axe = or_left_out!(npm_package(AXE.0, AXE.1));
    let opened = or_left_out!(Opened::start().await);
    let Opened { browser, site: Site { admin, flagstone, web, .. } } = &opened;
    // With something in every list.
    client::get(*web, "/").await.unwrap();
    browser.until("document.getElementById('routes').innerText.includes('site')").await;
    call(*admin, "POST", "/api/admin/blocklist", Some(json!({ "cidr": "192.0.2.0/24" }))).await;
    call(*admin, "POST", "/api/admin/limits/per_ip", Some(json!({ "rate": "1/1s", "ttlSeconds": 900 }))).await;
    call(*admin, "POST", "/api/admin/circuit-breakers/app/open", None).await;
    browser.until("document.getElementById('blocked').innerText.includes('192.0.2.0/24')").await;
    // Names are as long as somebody makes them.
    browser
        .run(
            "document.getElementById('route').options[1].text = 'a-route-whose-name-says-what-it-is-for-and-for-whom';
            for (const cell of document.querySelectorAll('#routes button, #certificate-rows :is(th span, .wide)'))
                cell.textContent = 'CN=a-name-as-providers-make-them.eu-central-1.subdomain.shop.example';",
        )
        .await;
    let axe = std::fs::read_to_string(axe.join("axe.min.js")).expect("the script of axe-core");
    browser.run(&format!("{axe}; window.axe = axe;")).await;
    let is_scheme = |scheme: &str| format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
    for (scheme, width, height) in [("light", 1366, 900), ("light", 390, 844), ("dark", 390, 844), ("dark", 1366, 900)]
    {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.devtools("Emulation.setDeviceMetricsOverride", screen).await;
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", feature).await;
        browser.until(&is_scheme(scheme)).await;
        assert_eq!(violations(browser).await, json!([]), "{scheme} {width}");
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.run(&format!("return {fits}")).await, true, "{scheme} {width}: nothing sticks out");
        let cut = "return [...document.querySelectorAll('#traffic .scroll, #certificates .scroll')]
            .filter(table => table.scrollWidth > table.clientWidth).map(table => table.ariaLabel)";
        assert_eq!(browser.run(cut).await, json!([]), "{scheme} {width}: the last column is in sight");
        browser.click("#maintenance-switch").await;
        assert_eq!(violations(browser).await, json!([]), "{scheme} {width}, a dialog");
        browser.click("#switch-on [data-close]").await;
        browser.click("#maintenance-route").await;
        browser.until("document.getElementById('switch-on').open").await;
        assert_eq!(violations(browser).await, json!([]), "{scheme} {width}, the dialog of one route");
        browser.click("#switch-on [data-close]").await;
    }
    call(*admin, "POST", "/api/admin/maintenance/enable?route=orders", Some(json!({ "reason": "New checkout" }))).await;
    browser.until("document.getElementById('maintenance-routes').innerText.includes('New checkout')").await;
    call(*admin, "POST", "/api/admin/maintenance/enable", Some(json!({ "reason": "Moving house" }))).await;
    browser.until("document.getElementById('maintenance').innerText.includes('Moving house')").await;
    assert_eq!(violations(browser).await, json!([]), "in maintenance");
    flagstone.process.signal(Signal::STOP);
    browser.until("document.body.hasAttribute('data-stale')").await;
    assert_eq!(violations(browser).await, json!([]), "without a connection");
    flagstone.process.signal(Signal::CONT);
}

#[tokio::test]
async fn the_keyboard_is_enough() {
    let opened = or_left_out!(Opened::start().await);
    let browser = &opened.browser;
    // From the top, everything that can be used comes in turn, and the focus is always in sight.
    let mut seen = Vec::new();
    for _ in 0..60 {
        browser.press(TAB).await;
        let focus =
            browser.run("const at = document.activeElement; return at.id || at.ariaLabel || at.innerText").await;
        let focus = focus.as_str().unwrap_or_default().to_owned();
        if seen.contains(&focus) {
            break;
        }
        seen.push(focus);
    }
    for wanted in [
        "maintenance-switch",
        "maintenance-route",
        "emergency",
        "Open the breaker of app",
        "Set limit per_ip",
        "new.checkout",
        "block-cidr",
        "reload",
        "event-text",
    ] {
        assert!(seen.iter().any(|one| one == wanted), "{wanted} cannot be reached: {seen:?}");
    }
    browser.run("document.getElementById('maintenance-switch').focus()").await;
    browser.press(" ").await;
    browser.until("document.getElementById('switch-on').open && document.activeElement.closest('#switch-on')").await;
    browser.press(ESCAPE).await;
    browser
        .until("!document.getElementById('switch-on').open && document.activeElement.id === 'maintenance-switch'")
        .await;
    browser.press(" ").await;
    browser.until("document.getElementById('switch-on').open").await;
    browser.write("#on-reason", "by hand").await;
    browser.press(ENTER).await;
    opened.status(|status| status["maintenance"]["reason"] == "by hand").await;
    // Time for the page to close the dialog again.
    let closed = eventually_async(Duration::from_secs(30), async || {
        browser.run("return document.getElementById('switch-on').open").await == false
    });
    assert!(closed.await);
}
