//! What errors and warnings say of texts with variables in them.

use super::*;

#[test]
fn unset_variables_are_named_and_not_also_missing() {
    assert_eq!(
        error_with("[admin]\nlisten = \"0.0.0.0:9900\"\ntoken = \"${FLAGSTONE_TOKEN}\""),
        "admin.token: the environment variable FLAGSTONE_TOKEN is not set: set it, or give a default: \"${FLAGSTONE_TOKEN:-default}\""
    );
}

#[test]
fn a_variable_is_shown_by_its_name() {
    let text = error_with("max_idle = \"${PORT}x\"");
    assert_eq!(text, "upstream.app.max_idle = \"${PORT}x\": must be a whole number: look at the variable");
    for (addition, shown) in [
        ("http2 = \"${PORT}\"", "http2 = \"${PORT}\": must be true or false: look at the variable"),
        ("max_idle = \"${PORT}.5\"", "max_idle = \"${PORT}.5\": must be a whole number: look at the variable"),
        ("max_idle = \"${SLACK_WEBHOOK}\"", "max_idle = \"${SLACK_WEBHOOK}\": must be a whole number"),
        ("balance = \"${SLACK_WEBHOOK}\"", "balance = \"${SLACK_WEBHOOK}\": must be "),
        ("[server]\nmax_connections = \"-${PORT}\"", "max_connections = \"-${PORT}\": must be "),
        ("[maintenance]\nstatus = \"${PORT}\"", "status = \"${PORT}\": must be "),
        ("[[route]]\nname = \"b\"\npath = \"${SLACK_WEBHOOK}\"", "path = \"${SLACK_WEBHOOK}\": must be "),
    ] {
        let text = errors(&format!("{MINIMAL}\n{addition}"));
        assert!(text.contains(shown) && !text.contains("secret") && !text.contains("3000"), "{addition}: {text}");
    }
}

#[test]
fn what_a_variable_holds_is_in_no_error_and_no_warning() {
    let env = |name: &str| (name == "S").then(|| "hunter2-hunter2".to_owned());
    let told = |addition: &str| {
        let text = format!("{MINIMAL}\n{addition}");
        match parse(&text, Path::new("flagstone.toml"), &env) {
            Ok(loaded) => loaded.warnings.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"),
            Err(problems) => problems.to_string(),
        }
    };
    for (addition, shown) in [
        ("[log]\nlevel = \"info,${S}\"", "log.level = \"info,${S}\": \"…\" is not a level: use "),
        ("[log]\naccess = \"${S:-x}\"", ""),
        ("hold = \"${S}\"", "upstream.app.hold = \"${S}\": not a duration: write whole numbers"),
        (
            "[upstream.b]\nendpoints = [\"http://${S}\"]",
            "endpoints[0] = \"http://${S}\": not an endpoint's address: leave out the scheme: \"…:80\"",
        ),
        ("[upstream.b]\nendpoints = [\"${S}\"]", "give a port: \"…:3000\""),
        (
            "[upstream.b]\nendpoints = [{ address = \"${S}:1\" }, { address = \"${S}:1\" }]",
            "endpoints[1] = \"…:1\": is listed twice",
        ),
        ("[[route]]\nname = \"b\"\nmethod = [\"${S}\"]\nrespond = {}", "methods are upper case: write \"…\""),
        ("[[route]]\nname = \"b\"\npath = [\"/${S}/*/x\"]\nrespond = {}", "\"/…/*/x\" looks like a pattern"),
        ("[[route]]\nname = \"b\"\npath = [\"${S}\"]\nrespond = {}", "path[0] = \"${S}\": not a path"),
        (
            "[[route]]\nname = \"b\"\nupstream = \"${S}\"\npath = [\"/b\"]",
            "route[1].upstream = \"${S}\": no upstream has this",
        ),
        ("[[test]]\nname = \"t\"\nrequest = { url = \"${S}\" }", "test[0].request.url = \"${S}\": not a whole URL"),
    ] {
        let told = told(addition);
        assert!(told.contains(shown) && !told.to_lowercase().contains("hunter"), "{addition}: {told}");
    }
}

#[test]
fn what_a_variable_holds_is_not_told_by_those_who_look_later_either() {
    let loaded = with("[log]\naccess = \"${SLACK_WEBHOOK}\"").unwrap();
    let problem = loaded.locate(Problem::new("log.access", "cannot be opened"));
    assert!(problem.to_string().ends_with("log.access = \"${SLACK_WEBHOOK}\": cannot be opened"), "{problem}");
}
