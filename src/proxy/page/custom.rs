//! The templates of a page folder, compiled.

use std::sync::atomic::AtomicBool;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State};

use super::folder::{PageFolder, language_of};
use super::text::TEXTS;

#[derive(Debug)]
pub(super) struct Custom {
    /// By language, `index.html` first.
    pub(super) html: Vec<Template>,
    pub(super) json: Option<Template>,
    pub(super) text: Option<Template>,
    pub(super) assets: PageFolder,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Template {
    pub(super) name: String,
    /// `index.html`, of which nobody says what it is, is taken for English, unless another is named so. Else it is empty.
    pub(super) lang: String,
    /// Says something that differs between two answers of one maintenance.
    pub(super) per_request: bool,
    /// A failure was told.
    pub(super) told: AtomicBool,
}

impl Custom {
    pub(super) fn compile(mut folder: PageFolder, environment: &mut Environment<'static>) -> Self {
        let mut warnings = Vec::new();
        if folder.templates.is_empty() {
            warnings.push("the folder holds no index.html, index.LANG.html, index.json or index.txt".to_owned());
        }
        let mut names = Vec::new();
        for (name, source) in std::mem::take(&mut folder.templates) {
            match environment.add_template_owned(name.clone(), source) {
                Ok(()) => names.push(name),
                Err(error) => warnings.push(describe(&name, &error)),
            }
        }
        let per_request = names.iter().filter_map(|name| environment.get_template(name).ok()).any(|template| {
            let used = template.undeclared_variables(false);
            used.contains("request_id") || used.contains("retry_after")
        });
        let template = |name: &String| Template {
            lang: language_of(name).unwrap_or_default().to_owned(),
            name: name.clone(),
            // One that includes another says what that says.
            per_request,
            told: AtomicBool::new(false),
        };
        let named = |wanted: &str| names.iter().find(|name| *name == wanted).map(template);
        let html = names.iter().filter(|name| language_of(name).is_some());
        let mut html: Vec<_> = html.map(template).collect();
        html.sort_by(|a, b| a.lang.cmp(&b.lang));
        let english = TEXTS[0].lang;
        let has_english = html.iter().any(|template| template.lang.eq_ignore_ascii_case(english));
        if let Some(unnamed) = html.first_mut().filter(|first| first.lang.is_empty() && !has_english) {
            english.clone_into(&mut unnamed.lang);
        }
        Self { html, json: named("index.json"), text: named("index.txt"), assets: folder, warnings }
    }
}

pub(super) fn describe(name: &str, error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" line {line}"));
    format!("{name}{line}: {}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

pub(super) fn escape_by_name(name: &str) -> AutoEscape {
    match name.rsplit_once('.') {
        Some((_, "html")) => AutoEscape::Html,
        Some((_, "json")) => AutoEscape::Custom("json".into()),
        _ => AutoEscape::None,
    }
}

/// Values in `index.json` become JSON, texts with their quotes and what is not known as `null`. Elsewhere that is
/// empty.
pub(super) fn write_escaped(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    if *state.auto_escape() != AutoEscape::Custom("json".into()) {
        return if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) };
    }
    let json = serde_json::to_string(value)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    out.write_str(&json).map_err(minijinja::Error::from)
}
