//! The page in a real browser.

use serde_json::json;

use super::{PATIENCE, switch_on, toml};
use crate::foreign::browser::Browser;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

async fn site(folder: Folder, maintenance: &str) -> (TestProxy, FakeUpstream) {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let proxy = TestProxy::toml(toml(&upstream, maintenance)).in_folder(folder).start().await;
    (proxy, upstream)
}

fn url(proxy: &TestProxy, path: &str) -> String {
    format!("http://{}{path}", proxy.address())
}

#[tokio::test]
async fn the_page_counts_down_in_the_visitors_own_time() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let (proxy, _upstream) = site(Folder::new(), "").await;
    let until = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 3600).unwrap();
    switch_on(&proxy, &format!("until = \"{until}\"\n")).await;
    browser.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Tokyo" })).await;
    browser.visit(&url(&proxy, "/")).await;
    let there = until.in_tz("Asia/Tokyo").unwrap();
    let shown = browser.run("return document.getElementById('until').textContent").await;
    let minutes = there.strftime(":%M").to_string();
    let hour = there.strftime("%-I").to_string();
    let shown = shown.as_str().unwrap();
    assert!(shown.contains(&minutes) && shown.contains(&hour) && shown.contains("GMT+9"), "{shown} is not {there}");
    // "59:58"
    let left = async || {
        let clock = browser.run("return document.getElementById('clock').textContent").await;
        let clock = clock.as_str().unwrap_or_default().to_owned();
        clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))
    };
    let first = left().await.unwrap();
    assert!((3000..=3600).contains(&first), "{first}");
    assert!(eventually_async(PATIENCE, async || left().await.is_some_and(|now| now < first)).await);
    assert!(browser.console().await.iter().all(|line| line.contains("503")), "the page does nothing it may not");
}

#[tokio::test]
async fn a_visitor_reads_their_own_language() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let (proxy, _upstream) = site(Folder::new(), "").await;
    switch_on(&proxy, "").await;
    let cases = [
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("fr-CA", "fr"),
        ("es-419", "es"),
        ("pt-BR", "pt"),
        ("id", "id"),
        ("ja", "ja"),
        ("zh-Hans-CN", "zh"),
        ("tlh,pt;q=0.5", "pt"),
        ("tlh", "en"),
    ];
    for (asked, lang) in cases {
        let agent = json!({ "userAgent": "test", "acceptLanguage": asked });
        browser.devtools("Emulation.setUserAgentOverride", agent).await;
        browser.visit(&url(&proxy, "/")).await;
        assert_eq!(browser.run("return document.documentElement.lang").await, lang, "{asked}");
    }
}

/// The contrast of the quietest text with its ground, as WCAG 2.2 defines it.
const CONTRAST: &str = "
    var part = function (v) { v /= 255; return v <= .04045 ? v / 12.92 : Math.pow((v + .055) / 1.055, 2.4) };
    var light = function (text) {
        var c = text.match(/[\\d.]+/g).map(Number);
        return .2126 * part(c[0]) + .7152 * part(c[1]) + .0722 * part(c[2]);
    };
    var ground = light(getComputedStyle(document.body).backgroundColor);
    var worst = Infinity;
    document.querySelectorAll('h1, p, dt, dd, time, .clock').forEach(function (element) {
        var ink = light(getComputedStyle(element).color);
        worst = Math.min(worst, (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05));
    });
    return worst";

#[tokio::test]
async fn the_page_fits_phone_and_desktop_and_is_readable_in_light_and_dark() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let (proxy, _upstream) = site(Folder::new(), "").await;
    let long = "Datenbankaktualisierungsvorbereitungsmaßnahmen".repeat(3);
    switch_on(&proxy, &format!("reason = \"{long}\"\nuntil = \"2130-01-31T22:00:00Z\"\n")).await;
    let mut grounds = Vec::new();
    for (width, height, is_phone) in [(390, 844, true), (1440, 900, false)] {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
        for scheme in ["light", "dark"] {
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.devtools("Emulation.setEmulatedMedia", media).await;
            browser.visit(&url(&proxy, "/")).await;
            let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_f64().unwrap() <= 0.0, "{width} {scheme}: {overflow} too wide");
            let contrast = browser.run(CONTRAST).await.as_f64().unwrap();
            assert!(contrast >= 4.5, "{width} {scheme}: {contrast}");
            grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor").await);
        }
    }
    assert_ne!(grounds[0], grounds[1]);
}

#[tokio::test]
async fn what_is_written_from_right_to_left_reads_from_right_to_left() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let (proxy, _upstream) = site(Folder::new(), "").await;
    switch_on(&proxy, "reason = \"שדרוג מסד הנתונים\"\nmessage = \"نعود قريبًا\"\n").await;
    browser.visit(&url(&proxy, "/")).await;
    for words in [".message", "dd"] {
        let direction = format!("return getComputedStyle(document.querySelector('{words}')).direction");
        assert_eq!(browser.run(&direction).await, "rtl", "{words}");
    }
    assert_eq!(browser.run("return getComputedStyle(document.querySelector('h1')).direction").await, "ltr");
    // As a page in such a language would be: what stood on the left stands on the right, and nothing sticks out.
    let turned = "document.documentElement.dir = 'rtl';
        var at = function (name) { return document.querySelector(name).getBoundingClientRect() };
        return [at('dt').left > at('dd').left, Math.abs(at('svg').right - at('main').right) < 1,
                document.documentElement.scrollWidth <= innerWidth]";
    assert_eq!(browser.run(turned).await, json!([true, true, true]));
}

#[tokio::test]
async fn a_page_of_ones_own_shows_with_its_assets_also_where_nothing_else_is_blocked() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let folder = Folder::new();
    folder.write(
        "page/index.html",
        "<!doctype html><title>{{ title }}</title><link rel=stylesheet href=\"{{ assets }}/style.css\">\
         <h1>Ours: {{ reason }}</h1><img src=\"{{ assets }}/img/logo.svg\">",
    );
    folder.write("page/style.css", "h1 { color: rgb(1, 2, 3) }");
    let logo = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"30\" height=\"20\"><path d=\"M0 0h9v9z\"/></svg>";
    folder.write("page/img/logo.svg", logo);
    let (proxy, upstream) = site(folder, "page = \"page\"").await;
    switch_on(&proxy, "reason = \"<b>new</b> shelves\"\npaths = [\"/shop\"]\n").await;
    browser.visit(&url(&proxy, "/shop/basket")).await;
    assert_eq!(browser.text().await.trim(), "Ours: <b>new</b> shelves");
    assert_eq!(browser.run("return getComputedStyle(document.querySelector('h1')).color").await, "rgb(1, 2, 3)");
    assert_eq!(browser.run("return document.querySelector('img').naturalWidth").await, 30);
    let asked: Vec<_> = upstream.requests().iter().map(|request| request.head.line.clone()).collect();
    assert!(asked.iter().all(|line| line.contains("favicon")), "{asked:?}");
}
