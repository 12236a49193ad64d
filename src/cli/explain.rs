//! `flagstone explain`: what a request would meet, and why. Works with the process down.
//!
//! The configuration is the file's, the flags, the block list and overridden limits are those in the state folder.
//! Only breakers live in a process alone: where one answers, it is asked for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::client::AdminArgument;
use super::{refuse, wrong_use};
use crate::app::App;
use crate::explain::Hypothetical;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    /// The method, GET if there is none, and the URL: https://example.com/api, or a path alone
    #[arg(value_name = "[METHOD] URL", required = true, num_args = 1..=2)]
    request: Vec<String>,
    /// Where the connection comes from
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    ip: IpAddr,
    /// A header of the request; may come several times
    #[arg(long, value_name = "K:V", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let wanted = match arguments.hypothetical() {
        Ok(wanted) => wanted,
        Err(message) => return wrong_use(&message),
    };
    let (loaded, _) = match arguments.admin.file.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let breakers = arguments.breakers();
    match App::explain(&loaded, &wanted, breakers.as_ref()) {
        Err(problems) => refuse(&problems),
        Ok(explained) => {
            match arguments.json {
                true => println!("{:#}", explained.to_json()),
                false => print!("{}", explained.to_text()),
            }
            ExitCode::SUCCESS
        }
    }
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
        // A path alone is on this machine.
        let whole = if url.starts_with('/') { format!("http://localhost{url}") } else { url.clone() };
        let parsed = whole.parse::<Uri>().ok();
        let url = parsed.filter(|url| url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")));
        let url = url.ok_or_else(|| format!("\"{whole}\" is not a URL: write one such as https://example.com/api"))?;
        let headers: HeaderMap = self.header.iter().cloned().collect();
        Ok(Hypothetical { method, url, ip: self.ip, headers })
    }

    /// The state of every breaker, where a process tells it.
    fn breakers(&self) -> Option<BTreeMap<String, String>> {
        let told = self.admin.client().ok()?.call("GET", "/api/status/circuit-breakers", None).ok()?;
        let breakers = told["circuitBreakers"].as_object()?;
        let state = |(name, breaker): (&String, &serde_json::Value)| {
            Some((name.clone(), breaker["state"].as_str()?.to_owned()))
        };
        Some(breakers.iter().filter_map(state).collect())
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("\"{}\" is not a header name", name.trim()))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "the value has a character that no header may have")?;
    Ok((name, value))
}
