//! The bodies of answers made here: the maintenance page, built in or from a folder, and small ones for
//! every other refusal. Not the headers around them, and not which kind or language a client reads.
//!
//! A page is rendered once for a maintenance, kind and language, and then handed out as it is. Only a custom
//! template that uses `request_id` or `retry_after` is rendered for each answer.
//!
//! A template that cannot be compiled or rendered is answered by the built-in page, with a warning.

mod custom;
mod folder;
mod refusal;
mod text;

use std::path::Path;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use minijinja::{Environment, context};
use serde_json::json;

use crate::policy::maintenance::{Active, Mode};

use custom::{Custom, Template, describe, escape_by_name, write_escaped};
use folder::PageFolder;
use text::{TEXTS, texts};

pub use folder::{Asset, FOLDER_BYTES_MAX, PageError};
pub use refusal::{Refusal, refusal_page};

pub use crate::message::negotiate::Kind;

/// Under this path a page folder's files are found whatever the route: a custom page links to them there.
pub const ASSETS_PATH: &str = "/.flagstone/maintenance/";

/// For `Content-Security-Policy` on the built-in page: it needs its own style and script, and asks its own URL.
pub const BUILT_IN_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What a maintenance answer says.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub active: &'a Active,
    /// One of [`Pages::languages`]; anything else gets the first of them.
    pub lang: &'a str,
    pub status: StatusCode,
    /// Seconds.
    pub retry_after: u64,
    pub request_id: &'a str,
}

/// A rendered body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub content_type: HeaderValue,
    pub body: Bytes,
    /// Rendered from the built-in page: [`BUILT_IN_POLICY`] applies.
    pub built_in: bool,
    /// Why the custom page was not used; told once per page.
    pub warning: Option<String>,
}

/// All that is needed to answer in maintenance: one per configuration.
#[derive(Debug)]
pub struct Pages {
    environment: Environment<'static>,
    folder: Option<Custom>,
    rendered: ArcSwap<Vec<Rendered>>,
}

#[derive(Clone, Debug)]
struct Rendered {
    key: Key,
    body: Bytes,
    built_in: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    active: u64,
    kind: Kind,
    /// Index into the languages.
    lang: usize,
    status: StatusCode,
}

const BUILT_IN: &str = "built-in.html";
/// Two dozen pages in eight languages; past it the oldest go.
const RENDERED_MAX: usize = 192;

impl Pages {
    /// The built-in page, or a folder's with the built-in one for what it lacks.
    ///
    /// # Errors
    /// When the folder cannot be read or is too large. A broken template is no error: see [`Pages::warnings`].
    pub fn load(folder: Option<&Path>) -> Result<Self, PageError> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(escape_by_name);
        environment.set_formatter(write_escaped);
        environment
            .add_template_owned(BUILT_IN, without_indentation(flagstone_assets::text("maintenance.html")))
            .expect("the built-in page compiles, as its tests show");
        let folder = folder.map(PageFolder::read).transpose()?;
        let folder = folder.map(|folder| Custom::compile(folder, &mut environment));
        let mut pages = Self { environment, folder, rendered: ArcSwap::default() };
        pages.try_out();
        Ok(pages)
    }

    /// What is wrong with the folder's templates.
    pub fn warnings(&self) -> &[String] {
        self.folder.as_ref().map_or(&[], |folder| &folder.warnings)
    }

    /// The languages there are for a kind, the first for who asks for none of them. An empty one is that of a template
    /// of which nobody says what it is.
    pub fn languages(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let custom = self.templates(kind);
        let built_in = match kind {
            _ if !custom.is_empty() => 0,
            Kind::Html | Kind::Text => TEXTS.len(),
            Kind::Json | Kind::Grpc => 1,
        };
        let built_in = TEXTS[..built_in].iter().map(|texts| texts.lang);
        custom.iter().map(|template| template.lang.as_str()).chain(built_in)
    }

    /// The body for a blocked request.
    pub fn maintenance(&self, kind: Kind, facts: &Facts<'_>) -> Answer {
        if kind == Kind::Grpc {
            return answer(kind, Bytes::new(), false);
        }
        let lang = self.languages(kind).position(|lang| lang.eq_ignore_ascii_case(facts.lang)).unwrap_or(0);
        let key = Key { active: facts.active.id, kind, lang, status: facts.status };
        if let Some(rendered) = self.rendered.load().iter().find(|rendered| rendered.key == key) {
            return answer(kind, rendered.body.clone(), rendered.built_in);
        }
        let template = self.templates(kind).get(lang);
        let custom = template.map(|template| (template, self.custom(template, kind, facts)));
        let (body, warning) = match custom {
            Some((template, Ok(body))) => {
                if !template.per_request {
                    self.keep(Rendered { key, body: body.clone(), built_in: false });
                }
                return answer(kind, body, false);
            }
            Some((template, Err(problem))) => {
                let first = !template.told.swap(true, Ordering::Relaxed);
                let body = self.built_in(kind, facts);
                if !template.per_request {
                    // It would fail in the same way again.
                    self.keep(Rendered { key, body: body.clone(), built_in: true });
                }
                (body, first.then_some(problem))
            }
            None => {
                let body = self.built_in(kind, facts);
                self.keep(Rendered { key, body: body.clone(), built_in: true });
                (body, None)
            }
        };
        Answer { warning, ..answer(kind, body, true) }
    }

    /// A file of the page folder, for a blocked GET or HEAD: by its path in the folder, or below [`ASSETS_PATH`].
    pub fn asset(&self, path: &str) -> Option<&Asset> {
        let folder = self.folder.as_ref()?;
        let name = path.strip_prefix(ASSETS_PATH).or_else(|| path.strip_prefix('/'))?;
        let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
        folder.assets.assets.get(&*name)
    }

    /// The same, but only below [`ASSETS_PATH`]: what a page may ask for also where nothing is blocked.
    pub fn page_asset(&self, path: &str) -> Option<&Asset> {
        path.starts_with(ASSETS_PATH).then(|| self.asset(path)).flatten()
    }

    fn templates(&self, kind: Kind) -> &[Template] {
        let Some(folder) = &self.folder else {
            return &[];
        };
        match kind {
            Kind::Html => &folder.html,
            Kind::Json => folder.json.as_slice(),
            Kind::Text => folder.text.as_slice(),
            Kind::Grpc => &[],
        }
    }

    fn custom(&self, template: &Template, kind: Kind, facts: &Facts<'_>) -> Result<Bytes, String> {
        let flag = &facts.active.flag;
        let texts = texts(&template.lang);
        let values = context! {
            title => texts.heading_of(flag.mode),
            reason => flag.reason.as_deref(),
            message => flag.message.as_deref(),
            mode => flag.mode.name(),
            started_at => facts.active.since.to_string(),
            until => flag.until.map(|until| until.to_string()),
            retry_after => facts.retry_after,
            status => facts.status.as_u16(),
            request_id => facts.request_id,
            lang => if template.lang.is_empty() { texts.lang } else { &template.lang },
            // Ours, and no entity is read inside of <style> and <script>.
            assets => minijinja::Value::from_safe_string(ASSETS_PATH.trim_end_matches('/').to_owned()),
        };
        let rendered = self.environment.get_template(&template.name).and_then(|template| template.render(values));
        let body = rendered.map_err(|error| describe(&template.name, &error))?;
        if kind == Kind::Json {
            serde_json::from_str::<serde::de::IgnoredAny>(&body).map_err(|error| {
                format!("{}: what it renders is no JSON: {error} (values bring their own quotes)", template.name)
            })?;
        }
        Ok(Bytes::from(body))
    }

    fn built_in(&self, kind: Kind, facts: &Facts<'_>) -> Bytes {
        match kind {
            Kind::Html => self.built_in_html(facts),
            Kind::Json => problem_json(facts),
            Kind::Text => self.plain_text(facts),
            Kind::Grpc => Bytes::new(),
        }
    }

    fn built_in_html(&self, facts: &Facts<'_>) -> Bytes {
        let flag = &facts.active.flag;
        let texts = texts(facts.lang);
        let values = context! {
            lang => texts.lang,
            dir => "ltr",
            heading => texts.heading_of(flag.mode),
            lead => texts.lead_of(flag.mode),
            reason => flag.reason.as_deref(),
            message => flag.message.as_deref(),
            started_at => facts.active.since.to_string(),
            until => flag.until.map(|until| until.to_string()),
            until_utc => flag.until.map(in_utc),
            // A blocked change must not become a GET by itself: what was typed is one step back.
            returns => flag.mode != Mode::ReadOnly,
            t => context! {
                reason => texts.reason,
                expected => texts.expected,
                remaining => texts.remaining,
                overdue => texts.overdue,
                returns => texts.returns,
                back => texts.back,
            },
        };
        let rendered = self.environment.get_template(BUILT_IN).and_then(|template| template.render(values));
        rendered.map_or_else(|_| self.plain_text(facts), Bytes::from)
    }

    fn plain_text(&self, facts: &Facts<'_>) -> Bytes {
        let flag = &facts.active.flag;
        let texts = texts(facts.lang);
        let mut text = format!("{}\n\n", texts.heading_of(flag.mode));
        text += flag.message.as_deref().unwrap_or(texts.lead_of(flag.mode));
        text.push('\n');
        if let Some(reason) = &flag.reason {
            text += &format!("{}: {reason}\n", texts.reason);
        }
        if let Some(until) = flag.until {
            text += &format!("{}: {}\n", texts.expected, in_utc(until));
        }
        Bytes::from(text)
    }

    fn keep(&self, rendered: Rendered) {
        self.rendered.rcu(|kept| {
            let surplus = (kept.len() + 1).saturating_sub(RENDERED_MAX);
            let mut next: Vec<_> = kept[surplus..].to_vec();
            next.push(rendered.clone());
            next
        });
    }

    /// Renders every template once, so that what is wrong is known before the first visitor meets it.
    fn try_out(&mut self) {
        use crate::policy::maintenance::{Flag, Scope, Switch};
        let text = Some("\"quoted\" <text>".to_owned());
        let flag = Flag { reason: text.clone(), message: text, until: Some(Timestamp::MAX), ..Flag::default() };
        let active = Switch::default().activate(Scope::Global, flag, Timestamp::UNIX_EPOCH);
        let bare = Switch::default().activate(Scope::Global, Flag::default(), Timestamp::UNIX_EPOCH);
        let mut problems = Vec::new();
        for kind in [Kind::Html, Kind::Json, Kind::Text] {
            for template in self.templates(kind) {
                for active in [&active, &bare] {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    let facts = Facts { active, lang: &template.lang, status, retry_after: 1, request_id: "0" };
                    if let Err(problem) = self.custom(template, kind, &facts)
                        && !template.told.swap(true, Ordering::Relaxed)
                    {
                        problems.push(problem);
                    }
                }
            }
        }
        if let Some(folder) = &mut self.folder {
            folder.warnings.extend(problems);
        }
    }
}

/// A page without what only its authors read: a tenth less to send to everybody.
fn without_indentation(page: &str) -> String {
    let lines = page.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.fold(String::with_capacity(page.len()), |page, line| page + line + "\n")
}

/// For the `grpc-message` header of a blocked gRPC call: percent-encoded, one line.
pub fn grpc_message(active: &Active) -> HeaderValue {
    let text = active.flag.reason.as_deref().unwrap_or("under maintenance");
    // The gRPC HTTP/2 protocol: everything but printable ASCII, and the percent sign itself.
    const ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    let encoded = percent_encoding::utf8_percent_encode(text, ENCODED).to_string();
    HeaderValue::from_str(&encoded).expect("printable ASCII is a header value")
}

/// RFC 9457: with no `type` of its own the title is the status's phrase.
fn problem_json(facts: &Facts<'_>) -> Bytes {
    let flag = &facts.active.flag;
    let texts = &TEXTS[0];
    let problem = json!({
        "type": "about:blank",
        "title": facts.status.canonical_reason().unwrap_or("Service Unavailable"),
        "status": facts.status.as_u16(),
        "detail": flag.message.as_deref().unwrap_or(texts.lead_of(flag.mode)),
        "reason": "maintenance",
        "maintenance": {
            "reason": flag.reason,
            "started_at": facts.active.since.to_string(),
            "estimated_completion": flag.until.map(|until| until.to_string()),
        },
    });
    Bytes::from(problem.to_string())
}

fn answer(kind: Kind, body: Bytes, built_in: bool) -> Answer {
    Answer { content_type: content_type(kind), body, built_in, warning: None }
}

/// Of a body of this kind.
pub(super) fn content_type(kind: Kind) -> HeaderValue {
    // As constants they are looked through once, by the compiler.
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
    const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
    match kind {
        Kind::Html => HTML,
        Kind::Json => JSON,
        Kind::Text => TEXT,
        Kind::Grpc => GRPC,
    }
}

/// For who has no script: `2030-01-31 22:00 UTC`.
fn in_utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests;
