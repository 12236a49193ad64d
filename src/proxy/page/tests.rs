use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::policy::maintenance::{Flag, Scope, Switch};

fn active(text: &str) -> Arc<Active> {
    let (flag, _) = Flag::parse(text.as_bytes());
    Switch::default().activate(Scope::Global, flag, "2030-01-01T00:00:00Z".parse().unwrap())
}

fn facts<'a>(active: &'a Active, lang: &'a str) -> Facts<'a> {
    Facts { active, lang, status: StatusCode::SERVICE_UNAVAILABLE, retry_after: 90, request_id: "r-1" }
}

fn text(pages: &Pages, kind: Kind, active: &Active, lang: &str) -> String {
    String::from_utf8(pages.maintenance(kind, &facts(active, lang)).body.to_vec()).unwrap()
}

fn folder(files: &[(&str, &str)]) -> (TempDir, Pages) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let pages = Pages::load(Some(folder.path())).unwrap();
    (folder, pages)
}

fn built_in() -> Pages {
    Pages::load(None).unwrap()
}

const TYPICAL: &str = "reason = \"Database upgrade\"\nuntil = \"2030-01-01T02:00:00Z\"";

#[test]
fn the_built_in_page_is_one_small_file_that_needs_nothing_else() {
    let page = text(&built_in(), Kind::Html, &active(TYPICAL), "en");
    assert!(page.len() < 20 * 1024, "{} bytes", page.len());
    for outside in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("Database upgrade"));
    assert!(page.contains("datetime=\"2030-01-01T02:00:00Z\">2030-01-01 02:00 UTC</time>"));
}

#[test]
fn every_built_in_language_renders_in_its_own_words() {
    let pages = built_in();
    let languages: Vec<_> = pages.languages(Kind::Html).collect();
    assert_eq!(languages, ["en", "de", "fr", "es", "pt", "id", "ja", "zh"]);
    for lang in languages {
        let page = text(&pages, Kind::Html, &active(TYPICAL), lang);
        assert!(page.contains(&format!("<html lang=\"{lang}\"")));
        assert!(page.contains(texts(lang).heading.replace('\'', "&#x27;").as_str()), "{lang}");
        assert!(!page.contains("{{") && !page.contains("{%"));
    }
}

#[test]
fn a_language_that_is_not_there_is_english() {
    assert!(text(&built_in(), Kind::Text, &active(""), "tlh").starts_with("We’ll be right back"));
}

#[test]
fn what_an_operator_writes_is_escaped() {
    let active = active("reason = \"<script>alert(1)</script>\"\nmessage = '\"><img onerror=x>'");
    let page = text(&built_in(), Kind::Html, &active, "en");
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn a_read_only_page_does_not_reload_itself() {
    let page = text(&built_in(), Kind::Html, &active("mode = \"read_only\""), "en");
    assert!(page.contains("Changes are paused"));
    assert!(page.contains("returns = false"));
    assert!(!page.contains("http-equiv"));
}

#[test]
fn problem_json_has_its_members_and_nulls_for_what_is_unknown() {
    let body = text(&built_in(), Kind::Json, &active(TYPICAL), "en");
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["title"], "Service Unavailable");
    assert_eq!(problem["maintenance"]["reason"], "Database upgrade");
    assert_eq!(problem["maintenance"]["started_at"], "2030-01-01T00:00:00Z");
    assert_eq!(problem["maintenance"]["estimated_completion"], "2030-01-01T02:00:00Z");
    let bare: serde_json::Value = serde_json::from_str(&text(&built_in(), Kind::Json, &active(""), "en")).unwrap();
    assert!(bare["maintenance"]["reason"].is_null() && bare["maintenance"]["estimated_completion"].is_null());
}

#[test]
fn grpc_has_no_body_and_an_encoded_message() {
    let active = active("reason = \"100% ü\"");
    let answer = built_in().maintenance(Kind::Grpc, &facts(&active, "en"));
    assert!(answer.body.is_empty());
    assert_eq!(answer.content_type, "application/grpc");
    assert_eq!(grpc_message(&active), "100%25 %C3%BC");
}

#[test]
fn a_page_is_rendered_once_for_a_maintenance_and_language() {
    let pages = built_in();
    let active = active(TYPICAL);
    let body = |lang| pages.maintenance(Kind::Html, &facts(&active, lang)).body;
    assert_eq!(body("en").as_ptr(), body("en").as_ptr());
    assert_ne!(body("en"), body("de"));
}

#[test]
fn rendered_pages_are_bounded_and_never_another_maintenances() {
    let pages = built_in();
    let switch = Switch::default();
    for round in 0..2 * RENDERED_MAX {
        let flag = Flag { reason: Some(format!("reason {round}.")), ..Flag::default() };
        let active = switch.activate(Scope::Global, flag, Timestamp::UNIX_EPOCH);
        assert!(text(&pages, Kind::Text, &active, "en").contains(&format!("reason {round}.")));
    }
    assert_eq!(pages.rendered.load().len(), RENDERED_MAX);
}

#[test]
fn a_folder_brings_its_page_its_languages_and_its_files() {
    let (_folder, pages) = folder(&[
        ("index.html", "<p>{{ reason }} {{ retry_after }} {{ request_id }} {{ assets }}"),
        ("index.de.html", "<p>Grund: {{ reason }}"),
        ("index.json", "{\"why\": {{ reason }}, \"end\": {{ until }}, \"in\": {{ retry_after }}}"),
        ("index.txt", "{{ reason }}!"),
        ("css/a b.css", "p{}"),
        (".hidden", "x"),
    ]);
    assert_eq!(pages.warnings(), [""; 0]);
    assert_eq!(pages.languages(Kind::Html).collect::<Vec<_>>(), ["en", "de"]);
    let active = active("reason = \"<a> \\\"b\\\"\"");
    let html = text(&pages, Kind::Html, &active, "fr");
    assert!(html.starts_with("<p>&lt;a&gt; &quot;b&quot; 90 r-1"), "{html}");
    assert!(text(&pages, Kind::Html, &active, "de").starts_with("<p>Grund: &lt;a&gt;"));
    assert_eq!(text(&pages, Kind::Text, &active, "en"), "<a> \"b\"!");
    assert_eq!(text(&pages, Kind::Json, &active, "en"), r#"{"why": "<a> \"b\"", "end": null, "in": 90}"#);
    let unsaid = self::active("");
    assert_eq!(text(&pages, Kind::Text, &unsaid, "en"), "!");
    assert!(text(&pages, Kind::Html, &unsaid, "fr").starts_with("<p> 90 r-1"));
    assert_eq!(text(&pages, Kind::Json, &unsaid, "en"), r#"{"why": null, "end": null, "in": 90}"#);
    assert_eq!(pages.asset("/css/a%20b.css").unwrap().content_type, "text/css; charset=utf-8");
    assert!(pages.asset("/.flagstone/maintenance/css/a b.css").is_some());
    for absent in ["/", "/index.html", "/.hidden", "/css", "/../css/a b.css", "css/a b.css"] {
        assert!(pages.asset(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_folders_page_says_its_own_language() {
    let page = "<html lang=\"{{ lang }}\">{{ title }}";
    let names = ["index.html", "index.nl.html", "index.pt-BR.html", "index.fr.html"];
    let (_folder, pages) = folder(&names.map(|name| (name, page)));
    for (lang, heading) in [
        ("", "We’ll be right back"),
        ("nl", "We’ll be right back"),
        ("pt-BR", "Voltamos já"),
        ("fr", "Nous revenons très vite"),
    ] {
        let own = if lang.is_empty() { "en" } else { lang };
        let expected = format!("<html lang=\"{own}\">{heading}");
        assert_eq!(text(&pages, Kind::Html, &active(""), lang), expected);
    }
    let (_folder, pages) = folder(&[("index.json", "[{{ lang }}, {{ assets }}]")]);
    assert_eq!(text(&pages, Kind::Json, &active(""), "nl"), "[\"en\", \"/.flagstone/maintenance\"]");
}

#[test]
fn a_folders_assets_are_found_from_its_styles_too() {
    let page = "<style>body{background:url({{ assets }}/sky.png)}</style><img src=\"{{ assets }}/a.png\">{{ reason }}";
    let (_folder, pages) = folder(&[("index.html", page)]);
    let html = text(&pages, Kind::Html, &active("reason = \"</style>\""), "en");
    let expected = "<style>body{background:url(/.flagstone/maintenance/sky.png)}</style>\
                    <img src=\"/.flagstone/maintenance/a.png\">&lt;&#x2f;style&gt;";
    assert_eq!(html, expected);
}

#[test]
fn what_a_folder_lacks_is_built_in() {
    let (_folder, pages) = folder(&[("index.txt", "mine")]);
    let active = active("");
    assert_eq!(text(&pages, Kind::Text, &active, "en"), "mine");
    assert!(text(&pages, Kind::Html, &active, "de").contains("Wir sind gleich wieder da"));
}

#[test]
fn a_template_that_does_not_compile_is_the_built_in_page_and_a_warning() {
    let (_folder, pages) = folder(&[("index.html", "<p>\n{% if %}")]);
    assert_eq!(pages.warnings().len(), 1);
    assert!(pages.warnings()[0].starts_with("index.html line 2:"), "{:?}", pages.warnings());
    assert!(text(&pages, Kind::Html, &active(""), "en").contains("right back"));
}

#[test]
fn a_template_that_fails_while_rendering_is_the_built_in_page_and_one_warning() {
    let (_folder, pages) = folder(&[
        ("index.html", "{% if retry_after == 90 %}{{ nothing.at.all }}{% endif %}"),
        ("index.json", "{\"why\": \"{{ reason }}\"}"),
    ]);
    assert_eq!(pages.warnings().len(), 1, "only the JSON is wrong before a request: {:?}", pages.warnings());
    let active = active("reason = \"x\"");
    let first = pages.maintenance(Kind::Html, &facts(&active, "en"));
    assert!(first.built_in && first.warning.is_some());
    assert!(pages.maintenance(Kind::Html, &facts(&active, "en")).warning.is_none());
    let json = pages.maintenance(Kind::Json, &facts(&active, "en"));
    assert!(json.built_in && serde_json::from_slice::<serde_json::Value>(&json.body).is_ok());
}

#[test]
fn a_folder_that_is_missing_or_too_large_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Pages::load(Some(&folder.path().join("none"))), Err(PageError::Read { .. })));
    fs::File::create(folder.path().join("big")).unwrap().set_len(FOLDER_BYTES_MAX + 1).unwrap();
    assert!(matches!(Pages::load(Some(folder.path())), Err(PageError::TooLarge { .. })));
}

#[test]
fn refusals_are_escaped_in_every_kind() {
    let (detail, request_id) = ("<b>\"&", "<i>");
    let refusal = Refusal { status: StatusCode::NOT_FOUND, reason: "no_route", detail, request_id };
    let body = |kind| String::from_utf8(refusal_page(kind, &refusal).1.to_vec()).unwrap();
    assert!(body(Kind::Html).contains("<h1>Not Found</h1><p dir=\"auto\">&lt;b&gt;&quot;&amp;</p>"));
    assert!(body(Kind::Html).contains("<p><small>Request ID: &lt;i&gt;</small></p></main>"));
    let without = refusal_page(Kind::Html, &Refusal { request_id: "", ..refusal }).1;
    assert!(!String::from_utf8_lossy(&without).contains("Request ID"));
    assert!(body(Kind::Html).len() < 2048);
    let problem: serde_json::Value = serde_json::from_str(&body(Kind::Json)).unwrap();
    assert_eq!((problem["status"].as_u64(), problem["reason"].as_str()), (Some(404), Some("no_route")));
    assert_eq!(body(Kind::Text), "Not Found\n<b>\"&\n");
    assert_eq!(body(Kind::Grpc), "");
}

#[test]
fn json_is_in_one_language() {
    assert_eq!(built_in().languages(Kind::Json).collect::<Vec<_>>(), ["en"]);
}

#[test]
fn pages_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Pages>();
}

#[test]
fn a_template_without_a_name_is_english_unless_another_is() {
    let (_folder, pages) = folder(&[("index.html", "plain"), ("index.de.html", "deutsch")]);
    assert_eq!(pages.languages(Kind::Html).collect::<Vec<_>>(), ["en", "de"]);
    let active = active(TYPICAL);
    assert_eq!(text(&pages, Kind::Html, &active, "en"), "plain");
    assert_eq!(text(&pages, Kind::Html, &active, "de"), "deutsch");
    assert_eq!(text(&pages, Kind::Html, &active, ""), "plain");
    let (_folder, pages) = folder(&[("index.html", "plain"), ("index.en.html", "english")]);
    assert_eq!(text(&pages, Kind::Html, &active, "en"), "english");
    assert_eq!(text(&pages, Kind::Html, &active, ""), "plain");
}
