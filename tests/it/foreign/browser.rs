//! A real browser: Chromium without a window.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{HEAD, LONG, curl_text};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Ended, Flagstone, Process, Signal};

/// No window, no first steps, and no word to anybody but the page.
const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--lang=en-US",
];

pub(super) fn chromium() -> Result<PathBuf, String> {
    program("chromium").or_else(|_| program("chromium-browser")).or_else(|_| program("google-chrome"))
}

/// Loads a page, lets its scripts run for a while of the page's own time, and prints what became of it. Whatever
/// the page says on its console is on stderr.
async fn dump_dom(chromium: PathBuf, url: &str) -> Ended {
    dump_dom_with(chromium, url, &[]).await
}

/// The same with further arguments.
pub(super) async fn dump_dom_with(chromium: PathBuf, url: &str, further: &[String]) -> Ended {
    let profile = Profile(Folder::new());
    let mut command = Command::new(chromium);
    command.args(ARGUMENTS).args(further).args(["--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"]);
    command.arg(profile.argument()).arg(url);
    profile.keep_to_it(&mut command).env("LANGUAGE", "en");
    let mut process = Process::start(&mut command);
    let status = process.wait(LONG).await;
    Ended { status, stdout: process.stdout(), stderr: process.stderr() }
}

#[tokio::test]
async fn the_maintenance_page_says_why_and_until_when() {
    let chromium = or_left_out!(chromium());
    let config = format!("{HEAD}[[route]]\nname = \"all\"\nrespond = {{ status = 200, body = \"ok\" }}\n");
    let folder = Folder::new();
    let until = jiff::Timestamp::now() + Duration::from_secs(3600);
    folder.write("state/maintenance.flag", format!("reason = \"Moving <b>house</b>\"\nuntil = \"{until}\"\n"));
    let mut flagstone = Flagstone::serve_in(folder, &config).await;
    let address = flagstone.address("web").await;
    let shown = dump_dom(chromium, &format!("http://{address}/some/page")).await;
    assert!(shown.status.success(), "{}", shown.stderr);
    assert!(shown.stdout.contains("Moving &lt;b&gt;house&lt;/b&gt;"), "{}", shown.stdout);
    assert!(shown.stdout.contains("<time"), "{}", shown.stdout);
    // What the policy of the page forbids, and what its script does wrong, is told on the console.
    let complaints = ["Content Security Policy", "Uncaught", "Refused to"];
    assert!(!complaints.iter().any(|words| shown.stderr.contains(words)), "{}", shown.stderr);
}

/// All that a browser writes down. Its last processes write while it is removed, so that is tried again.
struct Profile(Folder);

impl Profile {
    fn argument(&self) -> String {
        format!("--user-data-dir={}", self.0.path().display())
    }

    /// Has a program write nothing elsewhere.
    fn keep_to_it<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("HOME", self.0.path()).env("TMPDIR", self.0.path()).env("TZ", "UTC")
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        for _ in 0..20 {
            // What could not be removed this time is there to be seen.
            let _ = std::fs::remove_dir_all(self.0.path());
            std::thread::sleep(Duration::from_millis(50));
            if !self.0.path().exists() {
                return;
            }
        }
    }
}

/// A browser that can be asked things, through chromedriver.
pub(crate) struct Browser {
    session: String,
    // Its end is the browser's, should it not have quit: they talk through pipes.
    _driver: Process,
    _profile: Profile,
}

impl Drop for Browser {
    /// Asks it to quit, and waits for that: killed, it leaves processes behind that go on for a while.
    fn drop(&mut self) {
        let quit = || {
            let (address, path) = self.session.trim_start_matches("http://").split_once('/')?;
            let mut driver = TcpStream::connect(address).ok()?;
            driver.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            write!(driver, "DELETE /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
            driver.read(&mut [0; 1024]).ok()
        };
        // A test that failed because the browser is gone has said so itself.
        let _: Option<usize> = quit();
    }
}

impl Browser {
    /// # Errors
    /// That Chromium or its driver is not installed.
    pub(crate) async fn start() -> Result<Self, String> {
        Self::start_with(&[]).await
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(crate) async fn start_with(further: &[String]) -> Result<Self, String> {
        let (chromium, driver) = (chromium()?, program("chromedriver")?);
        let profile = Profile(Folder::new());
        let mut command = Command::new(driver);
        let mut driver = Process::start(profile.keep_to_it(command.arg("--port=0")));
        let line = driver.stdout_line("started successfully on port").await;
        let port = line.rsplit(' ').next().expect("a line has a last word").trim_end_matches('.');
        let mut args: Vec<String> = ARGUMENTS.iter().map(|&argument| argument.to_owned()).collect();
        args.extend_from_slice(further);
        args.extend(["--remote-debugging-pipe".into(), profile.argument()]);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": chromium, "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let sessions = format!("http://127.0.0.1:{port}/session");
        let opened = call(&sessions, &wanted).await;
        let id = opened["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {opened}"));
        Ok(Self { session: format!("{sessions}/{id}"), _driver: driver, _profile: profile })
    }

    /// Goes to a page and waits until it is loaded.
    pub(crate) async fn visit(&self, url: &str) {
        call(&format!("{}/url", self.session), &json!({ "url": url })).await;
    }

    /// The value of a function's body.
    pub(crate) async fn run(&self, script: &str) -> Value {
        call(&format!("{}/execute/sync", self.session), &json!({ "script": script, "args": [] })).await
    }

    /// Clicks on the element of a CSS selector, as a visitor would: it must be there, in sight and not covered.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        call(&format!("{}/element/{element}/click", self.session), &json!({})).await;
    }

    /// Types into a field, after what it holds.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        call(&format!("{}/element/{element}/value", self.session), &json!({ "text": text })).await;
    }

    /// Presses keys where the focus is; special ones are in the WebDriver standard, section 17.4.2.
    pub(crate) async fn press(&self, keys: &str) {
        let presses = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]);
        let source = json!({ "type": "key", "id": "keyboard", "actions": presses.collect::<Vec<_>>() });
        call(&format!("{}/actions", self.session), &json!({ "actions": [source] })).await;
    }

    /// Waits until a script returns a value that counts as true.
    ///
    /// # Panics
    /// When it does not in time.
    pub(crate) async fn until(&self, script: &str) {
        let holds = eventually_async(LONG, async || {
            let value = self.run(&format!("return Boolean({script})")).await;
            value == true
        });
        assert!(holds.await, "never: {script}\n{}", self.text().await);
    }

    async fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = call(&format!("{}/element", self.session), &wanted).await;
        let id = found.as_object().and_then(|object| object.values().next()).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no element {selector}: {found}")).to_owned()
    }

    /// What a visitor reads.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().expect("a text").to_owned()
    }

    /// One command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        call(&format!("{}/goog/cdp/execute", self.session), &json!({ "cmd": command, "params": parameters })).await;
    }

    /// Everything on the console since it was last asked.
    pub(crate) async fn console(&self) -> Vec<String> {
        let lines = call(&format!("{}/se/log", self.session), &json!({ "type": "browser" })).await;
        let lines = lines.as_array().unwrap_or_else(|| panic!("no log: {lines}"));
        lines.iter().filter_map(|line| line["message"].as_str()).map(str::to_owned).collect()
    }
}

/// Posts JSON to chromedriver and returns the `value` of what it says.
async fn call(url: &str, body: &Value) -> Value {
    // Through a file: a script may be longer than an argument can be.
    let folder = Folder::new();
    let file = format!("@{}", folder.write("body.json", body.to_string()).display());
    let text = curl_text(["-H", "Content-Type: application/json", "--data-binary", &file, url]).await;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(answer["value"].get("error").is_none(), "{url}: {text}");
    answer["value"].clone()
}

#[tokio::test]
async fn the_maintenance_page_gives_way_to_the_site_by_itself() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let respond = "respond = { status = 200, body = \"the site itself\", content_type = \"text/html\" }";
    let folder = Folder::new();
    folder.write("state/maintenance.flag", "reason = \"Moving house\"\n");
    let config = format!("{HEAD}[[route]]\nname = \"all\"\n{respond}\n");
    let mut flagstone = Flagstone::serve_in(folder, &config).await;
    let address = flagstone.address("web").await;
    browser.visit(&format!("http://{address}/some/page?x=1")).await;
    let text = browser.text().await;
    assert!(text.contains("Moving house"), "{text}");
    flagstone.folder.remove("state/maintenance.flag");
    // The page asks after eight seconds or so, and then ever more rarely.
    let is_back = eventually_async(LONG, async || browser.text().await == "the site itself").await;
    assert!(is_back, "{}", browser.text().await);
    assert_eq!(browser.run("return location.pathname + location.search").await, "/some/page?x=1");
    let log = flagstone.folder.join("access.log");
    let asked = eventually(DEADLINE, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("\"HEAD /some/page?x=1 HTTP/1.1\" 200 ")
    });
    assert!(asked.await, "it asks with HEAD: {}", flagstone.folder.read("access.log"));
}

#[tokio::test]
async fn every_button_of_the_demo_does_what_it_says() {
    or_left_out!(program("curl"));
    let browser = or_left_out!(Browser::start().await);
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut demo = Process::start(&mut Flagstone::command(arguments));
    let line = demo.stdout_line("The site ").await;
    let url = line.trim_start_matches("The site ").trim().to_owned();
    browser.visit(&url).await;
    let click = "for (const button of document.querySelectorAll('button')) button.click();
                 document.getElementById('say').requestSubmit();";
    browser.run(click).await;
    let wanted = ["429 rate_limited", "that took 2000 ms", "heard: hello", "tick ", "x-request-id"];
    let mut text = String::new();
    let all = eventually_async(DEADLINE, async || {
        text = browser.text().await.to_lowercase();
        wanted.iter().all(|words| text.contains(words))
    });
    assert!(all.await, "{text}");
    // A status above 399 is what some buttons are for; anything else is the page's own fault.
    let console = browser.console().await;
    let complaints: Vec<_> = console.iter().filter(|line| !line.contains("the server responded with")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    demo.signal(Signal::INT);
    assert!(demo.wait(DEADLINE).await.success());
}
