//! `flagstone explain`: what a request would meet, and why. Works with the process down.
//!
//! The configuration is the file's, the flags, the block list and overridden limits are those in the state folder.
//! Only breakers live in a process alone: where one answers, it is asked for them.
//!
//! With `--request-id` it tells of a request that has been: only the running process remembers those.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use serde_json::Value;

use super::client::{AdminArgument, segment};
use super::human::{millis, shown};
use super::{complain, print, refuse, wrong_use};
use crate::app::App;
use crate::explain::Hypothetical;
use crate::listener::head;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    /// The method, GET if there is none, and the URL: https://example.com/api, or a path alone
    #[arg(value_name = "[METHOD] URL", required_unless_present = "request_id", num_args = 1..=2)]
    request: Vec<String>,
    /// Where the connection comes from
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    ip: IpAddr,
    /// A header of the request; may come several times
    #[arg(long, value_name = "K:V", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Why the request with this X-Request-Id was refused or failed; the process remembers the last 1,000
    #[arg(long, value_name = "ID", conflicts_with_all = ["request", "ip", "header"])]
    request_id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if let Some(id) = &arguments.request_id {
        return remembered(arguments, id);
    }
    let wanted = match arguments.hypothetical() {
        Ok(wanted) => wanted,
        Err(message) => return wrong_use("explain", &message),
    };
    let loaded = match arguments.admin.file.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let breakers = arguments.breakers();
    match App::explain(&loaded, &wanted, breakers.as_ref()) {
        Err(problems) => refuse(&problems),
        Ok(explained) => print(
            match arguments.json {
                true => format!("{:#}\n", explained.to_json()),
                false => explained.to_text(),
            },
            ExitCode::SUCCESS,
        ),
    }
}

/// Asks the running process what became of a request.
fn remembered(arguments: &Arguments, id: &str) -> ExitCode {
    let path = format!("/api/requests?limit=1&id={}", segment(id));
    let answer = match arguments.admin.client().and_then(|client| client.call("GET", &path, None, "requests")) {
        Ok(answer) => answer,
        Err(error) => return error.report(),
    };
    let Some(failed) = answer["requests"].get(0) else {
        complain(format_args!(
            "no refused or failed request has the id {}: it went well, or it is none of the last 1,000",
            shown(id)
        ));
        return ExitCode::FAILURE;
    };
    let text = if arguments.json { format!("{failed:#}\n") } else { story(failed) };
    print(text, ExitCode::SUCCESS)
}

/// What `/api/requests` says of one request, for people.
fn story(failed: &Value) -> String {
    let text = |key: &str| failed[key].as_str().map(shown);
    let or_none = |key: &str| text(key).unwrap_or_else(|| "-".to_owned());
    let policy = &failed["policy"];
    let decided =
        [&policy["kind"], &policy["name"]].into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let mut upstream = or_none("upstream");
    if let Some(endpoint) = text("endpoint") {
        upstream += &format!(", endpoint {endpoint}");
    }
    if let Some(taken) = failed["upstreamMs"].as_f64() {
        // What has a reason is no answer of the app's: it may have failed after that time.
        let what = if failed["reason"].is_null() { "answered after" } else { "waited for" };
        upstream += &format!(", {what} {}", millis(taken));
    }
    let reason = text("reason").map_or_else(String::new, |reason| format!(" {reason}"));
    let rows = [
        ("time", or_none("time")),
        ("client", or_none("client")),
        ("route", or_none("route")),
        ("decided by", shown(&decided)),
        ("upstream", upstream),
        ("took", failed["durationMs"].as_f64().map_or_else(|| "-".to_owned(), millis)),
    ];
    let trace = text("traceId").map(|trace| ("trace", trace));
    let rows: String = rows.into_iter().chain(trace).map(|(name, value)| format!("  {name:<12} {value}\n")).collect();
    let (method, host, target) = (or_none("method"), text("host").unwrap_or_default(), or_none("target"));
    format!("{method} {host}{target}\n\n{rows}\n=> {}{reason}\n", failed["status"])
}

impl Arguments {
    /// # Errors
    /// What is wrong with the words.
    fn hypothetical(&self) -> Result<Hypothetical, String> {
        let (method, url) = match self.request.as_slice() {
            [url] => (Method::GET, url),
            [method, url] => {
                let upper = method.to_ascii_uppercase();
                let method = Method::from_bytes(upper.as_bytes());
                (method.map_err(|_| format!("\"{upper}\" is not a method"))?, url)
            }
            _ => return Err("write METHOD URL, or URL alone".to_owned()),
        };
        let named = self.header.iter().find(|(name, _)| name == HOST).and_then(|(_, host)| host.to_str().ok());
        // A path alone is on the host that a header names, else on this machine.
        let whole = match url.starts_with('/') {
            true => format!("http://{}{url}", named.unwrap_or("localhost")),
            false => url.clone(),
        };
        // As a listener reads it: what should have been escaped, it escapes.
        let parsed = whole.parse::<Uri>().ok().or_else(|| head::escaped(&whole).ok()?.parse().ok());
        let url = parsed.filter(|url| url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")));
        let url = url.ok_or_else(|| format!("\"{whole}\" is not a URL: write one such as https://example.com/api"))?;
        let headers: HeaderMap = self.header.iter().cloned().collect();
        Ok(Hypothetical { method, url, ip: self.ip, headers })
    }

    /// The state of every breaker, where a process tells it.
    fn breakers(&self) -> Option<BTreeMap<String, String>> {
        let told =
            self.admin.client().ok()?.call("GET", "/api/status/circuit-breakers", None, "circuitBreakers").ok()?;
        let breakers = told["circuitBreakers"].as_object()?;
        let state = |(name, breaker): (&String, &Value)| Some((name.clone(), breaker["state"].as_str()?.to_owned()));
        Some(breakers.iter().filter_map(state).collect())
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("\"{}\" is not a header name", name.trim()))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "the value has a character that no header may have")?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Arguments as Whole;
    use super::super::{Command, Parser as _};
    use super::story;

    #[test]
    fn a_path_alone_is_on_the_host_that_a_header_names() {
        let url = |words: &[&str]| {
            let whole = Whole::parse_from(["flagstone", "explain"].iter().chain(words));
            let Command::Explain(arguments) = whole.command else { panic!("it is explain") };
            arguments.hypothetical().unwrap().url.to_string()
        };
        assert_eq!(url(&["/a?b", "--header", "Host: shop.example"]), "http://shop.example/a?b");
        assert_eq!(url(&["/a?b", "--header", "X: y"]), "http://localhost/a?b");
        assert_eq!(url(&["https://a.example/", "--header", "Host: b.example"]), "https://a.example/");
    }

    #[test]
    fn an_app_that_did_not_answer_is_not_said_to() {
        let told = |status: u16, reason: Option<&str>| {
            story(
                &json!({ "status": status, "reason": reason, "upstream": "app", "endpoint": "a:1", "upstreamMs": 20.0 }),
            )
        };
        assert!(told(500, None).contains(" app, endpoint a:1, answered after 20"), "{}", told(500, None));
        let late = told(504, Some("upstream_timeout"));
        assert!(late.contains(" app, endpoint a:1, waited for 20"), "{late}");
    }

    #[test]
    fn what_a_listener_escapes_is_explained_as_it_does() {
        let url = |text: &str| {
            let Command::Explain(arguments) = Whole::parse_from(["flagstone", "explain", text]).command else {
                panic!("it is explain")
            };
            arguments.hypothetical().map(|wanted| wanted.url.to_string())
        };
        let escaped = Ok("http://localhost/s?q={%22a%22:%3Cb%3E}".to_owned());
        assert_eq!(url("/s?q={\"a\":<b>}"), escaped);
        assert_eq!(url("http://localhost/s?q={\"a\":<b>}"), escaped);
        assert!(url("/a b").is_err(), "no request line has it");
    }
}
