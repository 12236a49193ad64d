//! `flagstone certs`: how long the certificates of the listeners last, from their files.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::human::shown;
use super::{FileArgument, complain, print, refuse};
use crate::config::model::{CertificatePair, Config};
use crate::tls::{CertificateFacts, Standing, faults_of_pair, read_facts, read_pair};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// Print a JSON array instead
    #[arg(long)]
    json: bool,
}

/// One pair, as its files are.
struct Entry {
    file: String,
    /// `None` = nothing can be read of the certificate.
    facts: Option<CertificateFacts>,
    standing: Standing,
    /// All that is wrong with the two.
    errors: Vec<String>,
}

/// Needs no running process. Exit code 1 when a certificate is inside the warning window, has ended or cannot be used.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let loaded = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let now = Timestamp::now().as_second();
    let entries: Vec<_> = pairs(&loaded.config)
        .into_iter()
        .map(|pair| Entry::read(pair, now, loaded.config.certificates.warn_days))
        .collect();
    for error in entries.iter().flat_map(|entry| &entry.errors) {
        complain(error);
    }
    // Scripts read these lines, people their columns.
    let widths = if std::io::stdout().is_terminal() { Widths::of(&entries) } else { Widths::default() };
    let text = match arguments.json {
        true => format!("{:#}\n", entries.iter().map(|entry| entry.json(now)).collect::<Value>()),
        false if entries.is_empty() => "no listener has certificates\n".to_owned(),
        false => entries.iter().map(|entry| entry.line(now, widths) + "\n").collect(),
    };
    let is_well = entries.iter().all(|entry| entry.standing == Standing::Ok);
    print(text, if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each once, in the order of the file.
fn pairs(config: &Config) -> Vec<&CertificatePair> {
    let mut seen = BTreeSet::new();
    let all = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates);
    all.filter(|pair| seen.insert((&pair.cert, &pair.key))).collect()
}

/// Room for the domain and the issuer, so that several certificates line up.
#[derive(Clone, Copy, Default)]
struct Widths {
    domain: usize,
    issuer: usize,
}

impl Widths {
    fn of(entries: &[Entry]) -> Self {
        let widest = |text: fn(&Entry) -> String| entries.iter().map(|entry| text(entry).chars().count()).max();
        Self { domain: widest(Entry::domain).unwrap_or(0), issuer: widest(Entry::issuer).unwrap_or(0) }
    }
}

impl Entry {
    fn domain(&self) -> String {
        shown(&self.facts.as_ref().map_or_else(|| self.file.clone(), CertificateFacts::domain))
    }

    fn issuer(&self) -> String {
        self.facts.as_ref().map_or_else(|| "-".to_owned(), |facts| shown(&facts.issuer))
    }

    fn read(pair: &CertificatePair, now: i64, warn_days: u32) -> Self {
        let file = pair.cert.display().to_string();
        match read_pair(pair) {
            Ok((_, facts)) => {
                let standing = facts.standing(now, warn_days);
                let errors = (standing == Standing::Invalid).then(|| format!("{file}: is not valid yet"));
                Self { file, facts: Some(facts), standing, errors: errors.into_iter().collect() }
            }
            // The certificate may be well and its key not.
            Err(error) => {
                let facts = read_facts(&pair.cert).ok();
                let errors: Vec<_> =
                    faults_of_pair(pair, "").into_iter().map(|fault| fault.error.to_string()).collect();
                // Mended in this very moment, it was still not well when it was read.
                let errors = if errors.is_empty() { vec![error.to_string()] } else { errors };
                Self { file, facts, standing: Standing::Invalid, errors }
            }
        }
    }

    fn line(&self, now: i64, widths: Widths) -> String {
        let expires = self.facts.as_ref().map_or_else(|| "-".to_owned(), |facts| expires(facts, now));
        let (domain, issuer, status) = (self.domain(), self.issuer(), self.standing.as_str());
        let Widths { domain: domain_width, issuer: issuer_width } = widths;
        format!("Domain: {domain:domain_width$} Issuer: {issuer:issuer_width$} Expires: {expires} Status: {status}")
    }

    fn json(&self, now: i64) -> Value {
        let facts = self.facts.as_ref();
        json!({
            "file": self.file,
            "domain": facts.map(CertificateFacts::domain),
            "names": facts.map(|facts| &facts.names),
            "issuer": facts.map(|facts| &facts.issuer),
            "notAfter": facts.map(CertificateFacts::until),
            "daysLeft": facts.map(|facts| facts.days_left(now)),
            "status": self.standing.as_str(),
            "error": (!self.errors.is_empty()).then(|| self.errors.join("; ")),
        })
    }
}

/// `2026-03-15 (46 days)`.
fn expires(facts: &CertificateFacts, now: i64) -> String {
    let date = facts.until().chars().take(10).collect::<String>();
    match facts.days_left(now) {
        1 => format!("{date} (1 day)"),
        days => format!("{date} ({days} days)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(not_after: i64, standing: Standing) -> Entry {
        let facts = CertificateFacts {
            file: "site.pem".into(),
            names: vec!["example.com".into(), "www.example.com".into()],
            issuer: "CN=R11,O=Let's Encrypt,C=US".into(),
            not_before: 0,
            not_after,
        };
        Entry { file: "site.pem".into(), facts: Some(facts), standing, errors: Vec::new() }
    }

    #[test]
    fn a_line_has_domain_issuer_end_and_status() {
        let now = 1_769_558_400; // 2026-01-28T00:00:00Z
        let line = |days: i64, standing| entry(now + days * 86_400 + 86_399, standing).line(now, Widths::default());
        let before = "Domain: example.com Issuer: CN=R11,O=Let's Encrypt,C=US Expires: ";
        assert_eq!(line(46, Standing::Ok), format!("{before}2026-03-15 (46 days) Status: OK"));
        assert_eq!(line(1, Standing::Expiring), format!("{before}2026-01-29 (1 day) Status: EXPIRING"));
        assert_eq!(line(-2, Standing::Expired), format!("{before}2026-01-26 (-2 days) Status: EXPIRED"));
    }

    #[test]
    fn what_cannot_be_read_goes_by_its_file() {
        let entry = Entry { facts: None, ..entry(0, Standing::Invalid) };
        assert_eq!(entry.line(0, Widths::default()), "Domain: site.pem Issuer: - Expires: - Status: INVALID");
    }

    #[test]
    fn several_line_up() {
        let unread = Entry { facts: None, ..entry(0, Standing::Invalid) };
        let entries = [entry(0, Standing::Ok), unread];
        let widths = Widths::of(&entries);
        let lines: Vec<_> = entries.iter().map(|entry| entry.line(0, widths)).collect();
        assert_eq!(lines[0].find("Issuer:"), lines[1].find("Issuer:"), "{lines:?}");
        assert_eq!(lines[0].find("Expires:"), lines[1].find("Expires:"), "{lines:?}");
    }
}
