//! The dashboard: the page at `/` and the files it is made of, all of them in the binary.
//!
//! They hold no data and need no token; what they show they ask the admin side's calls for. The policy lets a browser
//! load nothing from elsewhere, run no script but these files, and show the page in no frame.

use std::fmt::Write;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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

const PAGE: File = File { name: "", bytes: include_bytes!("../../static/dashboard.html") };

/// A file of the page.
#[derive(Clone, Copy)]
struct File {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal)*) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!("../../static/dashboard/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "api.js" "attention.js" "blocked.js" "certificates.js" "charts.js" "configuration.js" "connection.js" "dialog.js"
    "dom.js" "events.js" "features.js" "feed.js" "format.js" "icon.svg" "limits.js" "login.js" "main.js"
    "maintenance.js" "notices.js" "poll.js" "refused.js" "state.js" "style.css" "traffic.js" "upstreams.js"
    "uplot/LICENSE" "uplot/uPlot.iife.min.js" "uplot/uPlot.min.css"
};

pub(super) fn router() -> Router<Panel> {
    // The files are no calls: OpenAPI cannot say "anything below" of a path, and nobody asks for them but the page.
    calls().route("/dashboard/{*name}", get(file))
}

calls!(page);

#[utoipa::path(get, path = "/", tag = "status", responses(
    (status = 200, description = "The dashboard", body = String, content_type = "text/html"),
    (status = 304, description = "The one that the client has")))]
async fn page(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.answer(&headers),
        None => problem(StatusCode::NOT_FOUND, "the dashboard has no such file").into_response(),
    }
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
        if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, fixed, [(ETAG, tag)]).into_response();
        }
        (fixed, [(ETAG, tag)], [(CONTENT_TYPE, self.content_type())], self.bytes).into_response()
    }

    fn content_type(self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ if self.name.is_empty() => "text/html; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// A strong validator (RFC 9110, section 8.8.3).
    fn tag(self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.bytes);
        let hex = digest.as_ref().iter().take(12).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        format!("\"{hex}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: File) -> &'static str {
        std::str::from_utf8(file.bytes).unwrap()
    }

    /// What a script imports, as a name in [`FILES`].
    fn imports(script: &str) -> impl Iterator<Item = &str> {
        script.lines().filter_map(|line| line.strip_prefix("import ")?.split("\"./").nth(1)?.strip_suffix("\";"))
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_used() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../static/dashboard");
        let mut found = Vec::new();
        for (prefix, folder) in [("", folder.clone()), ("uplot/", folder.join("uplot"))] {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            found.extend(files.map(|file| format!("{prefix}{}", file.file_name().to_str().unwrap())));
        }
        found.sort();
        let mut served: Vec<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        served.sort();
        assert_eq!(found, served);
        let scripts = || FILES.iter().filter(|file| file.name.ends_with(".js") && !file.name.contains('/'));
        for file in FILES.iter().filter(|file| file.name != "uplot/LICENSE") {
            let in_page = text(PAGE).contains(&format!("\"dashboard/{}\"", file.name));
            let imported = scripts().any(|script| imports(text(*script)).any(|name| name == file.name));
            assert!(in_page || imported, "{} is used by nobody", file.name);
        }
        for name in scripts().flat_map(|script| imports(text(*script))) {
            assert!(FILES.iter().any(|file| file.name == name), "there is no {name}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_markup_is_made_of_data() {
        let own = FILES.iter().filter(|file| !file.name.starts_with("uplot/") && file.name != "icon.svg");
        for file in own.copied().chain([PAGE]) {
            let text = text(file);
            for unwanted in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "style=\"", "<style"]
            {
                assert!(!text.contains(unwanted), "{}: {unwanted}", file.name);
            }
            // A handler or a script in the page would not run.
            assert!(!text.contains(" onclick=") && !text.contains("<script>"), "{}", file.name);
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let file = FILES[0];
        let first = file.answer(&HeaderMap::new());
        let tag = first.headers()[ETAG].clone();
        assert_eq!(first.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        assert_eq!(file.answer(&known).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(FILES[1].answer(&known).status(), StatusCode::OK);
    }
}
