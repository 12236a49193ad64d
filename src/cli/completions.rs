//! `flagstone completions` and `flagstone man`: both are made from the arguments as the parser knows them.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints a script for the shell to source.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "flagstone", &mut script);
    print(&script, ExitCode::SUCCESS)
}

/// Prints one manual page: the program, then each command with its options.
pub(super) fn man() -> ExitCode {
    let mut root = super::Arguments::command();
    root.build();
    let mut page = Vec::new();
    let rendered = render(&root, &mut page);
    rendered.expect("writing to memory succeeds");
    print(&page, ExitCode::SUCCESS)
}

fn render(root: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = clap_mangen::Man::new(root.clone()).manual("Flagstone");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        render_command(command, page)?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"\n0: done. 1: it said no, and stderr says why. 2: wrong use.")?;
    writeln!(page, ".SH FILES\nflagstone.toml, /etc/flagstone/flagstone.toml: the configuration")?;
    writeln!(page, ".SH SIGNALS")?;
    for (signal, effect) in SIGNALS {
        writeln!(page, ".TP\n\\fB{signal}\\fR\n{effect}")?;
    }
    man.render_version_section(page)
}

const SIGNALS: [(&str, &str); 5] = [
    ("HUP", "reads the configuration and the certificates again"),
    ("USR1", "opens the access log anew, for rotation"),
    ("USR2", "replaces the running process by one of the program that is there now"),
    ("TERM, QUIT", "drains, then exits with 0"),
    ("INT", "stops at once"),
];

/// A command and those below it.
fn render_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let below: Vec<_> =
        command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help").collect();
    if below.is_empty() {
        let name = command.get_display_name().unwrap_or(command.get_name()).replace('-', " ");
        writeln!(page, ".SS \"{name}\"")?;
        let man = clap_mangen::Man::new(command.clone().disable_help_flag(true).disable_version_flag(true));
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        // Sections of a page of its own become paragraphs of this one.
        let text = String::from_utf8_lossy(&sections);
        for line in text.lines() {
            match line.strip_prefix(".SH ") {
                Some(_) => writeln!(page, ".PP")?,
                None => writeln!(page, "{line}")?,
            }
        }
    }
    below.into_iter().try_for_each(|command| render_command(command, page))
}
