//! The dashboard: the page at `/` and the files it is made of, all of them in the binary.
//!
//! They hold no data and need no token; what they show they ask the admin side's calls for. The policy lets a browser
//! load nothing from elsewhere, run no script but these files, and show the page in no frame.

use std::fmt::Write;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flagstone_assets::Asset;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, StatusCode};

use super::calls::calls;
use super::routes::Panel;
use super::view::problem;

/// Where the files are, beside the page.
pub(super) const FOLDER: &str = "/dashboard/";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Where they are among what the binary carries.
const PAGE: &str = "dashboard.html";
const FILES: &str = "dashboard/";

/// A file of the page.
#[derive(Clone, Copy)]
struct File(&'static Asset);

pub(super) fn router() -> Router<Panel> {
    // The files are no calls: OpenAPI cannot say "anything below" of a path, and nobody asks for them but the page.
    calls().route("/dashboard/{*name}", get(file))
}

calls!(page);

#[utoipa::path(get, path = "/", tag = "status", responses(
    (status = 200, description = "The dashboard", body = String, content_type = "text/html"),
    (status = 304, description = "The one that the client has")))]
async fn page(headers: HeaderMap) -> Response {
    page_file().answer(&headers)
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match flagstone_assets::find(&format!("{FILES}{name}")) {
        Some(asset) => File(asset).answer(&headers),
        None => problem(StatusCode::NOT_FOUND, "the dashboard has no such file").into_response(),
    }
}

fn page_file() -> File {
    File(flagstone_assets::find(PAGE).expect("the binary carries the page"))
}

impl File {
    /// Asked for anew with every visit: after an upgrade no old script meets a new page.
    fn answer(self, headers: &HeaderMap) -> Response {
        let tag = self.tag();
        let fixed: [(HeaderName, &str); 4] = [
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        if is_known(headers, &tag) {
            return (StatusCode::NOT_MODIFIED, fixed, [(ETAG, tag)]).into_response();
        }
        (fixed, [(ETAG, tag)], [(CONTENT_TYPE, self.content_type())], self.0.bytes()).into_response()
    }

    fn content_type(self) -> &'static str {
        match self.0.name().rsplit_once('.').map(|(_, extension)| extension) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("html") => "text/html; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// A strong validator (RFC 9110, section 8.8.3).
    fn tag(self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.bytes());
        let hex = digest.as_ref().iter().take(12).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        format!("\"{hex}\"")
    }
}

/// Whether the client has it: `*`, or one of a list, compared weakly (RFC 9110, section 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    let mut members = lines.flat_map(|line| line.split(',')).map(str::trim);
    members.any(|member| member == "*" || member.strip_prefix("W/").unwrap_or(member) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files below the page by their names there.
    fn files() -> impl Iterator<Item = (&'static str, &'static Asset)> {
        flagstone_assets::all().iter().filter_map(|asset| Some((asset.name().strip_prefix(FILES)?, asset)))
    }

    /// What a script imports, as a name below [`FILES`].
    fn imports(script: &str) -> impl Iterator<Item = &str> {
        script.lines().filter_map(|line| line.strip_prefix("import ")?.split("\"./").nth(1)?.strip_suffix("\";"))
    }

    #[test]
    fn every_file_is_used_and_none_is_missing() {
        let scripts = || files().filter(|(name, _)| name.ends_with(".js") && !name.contains('/'));
        for (name, _) in files().filter(|(name, _)| *name != "uplot/LICENSE") {
            let in_page = page_file().0.text().contains(&format!("\"dashboard/{name}\""));
            let imported = scripts().any(|(_, script)| imports(script.text()).any(|import| import == name));
            assert!(in_page || imported, "{name} is used by nobody");
        }
        for import in scripts().flat_map(|(_, script)| imports(script.text())) {
            assert!(files().any(|(name, _)| name == import), "there is no {import}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_markup_is_made_of_data() {
        let own = files().filter(|(name, _)| !name.starts_with("uplot/") && *name != "icon.svg");
        for (name, asset) in own.chain([(PAGE, page_file().0)]) {
            let text = asset.text();
            for unwanted in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "style=\"", "<style"]
            {
                assert!(!text.contains(unwanted), "{name}: {unwanted}");
            }
            // A handler or a script in the page would not run.
            assert!(!text.contains(" onclick=") && !text.contains("<script>"), "{name}");
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let file = |name| File(flagstone_assets::find(name).unwrap());
        let first = file("dashboard/api.js").answer(&HeaderMap::new());
        let tag = first.headers()[ETAG].clone();
        assert_eq!(first.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        assert_eq!(file("dashboard/api.js").answer(&known).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file("dashboard/main.js").answer(&known).status(), StatusCode::OK);
        let tag = known[IF_NONE_MATCH].to_str().unwrap();
        for (known, status) in [
            (format!("W/{tag}"), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("*".to_owned(), StatusCode::NOT_MODIFIED),
            (format!("{tag}x"), StatusCode::OK),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, known.parse().unwrap())]);
            assert_eq!(file("dashboard/api.js").answer(&headers).status(), status, "{known}");
        }
    }
}
