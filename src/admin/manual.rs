//! Manual pages and shell completions, made from the definition in `args`, so that they can't say anything else.
//!
//! A page for each command, `frr-offload-show-routes(8)` and so on, as `clap_mangen` renders them; this module adds what
//! the definition doesn't hold: files, exit codes and where to read on. Packages call it while they are built; it knows
//! neither the daemon nor the configuration, whose page is written from the default file (`scripts/deb`).

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Args;
use crate::config::DEFAULT_PATH;

const SECTION: &str = "8";
const NAME: &str = "frr-offload";

/// `completions`: the script of one shell, to standard output.
pub fn completions(shell: Shell) -> io::Result<()> {
    // The generator panics where it can't write, as after a reader that has left.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    io::stdout().write_all(&script)
}

/// `man`: the page of every command into `folder`.
pub fn write_pages(folder: &Path) -> io::Result<()> {
    // `help` and its copies of all commands are no pages of their own.
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    write_page(&program, folder)?;
    write_pages_below(&program, folder)
}

fn write_pages_below(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write_page(below, folder)?;
        write_pages_below(below, folder)?;
    }
    Ok(())
}

fn write_page(command: &Command, folder: &Path) -> io::Result<()> {
    let page = Man::new(command.clone())
        .section(SECTION)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("System Manager's Manual");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    ending(command).to_writer(&mut text)?;
    fs::write(folder.join(page.get_filename()), text)
}

/// What stands at the end of a page; most of it only on the program's own.
fn ending(command: &Command) -> Roff {
    let mut roff = Roff::new();
    if command.get_name() != NAME {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold(NAME), roman("(8)")]);
        return roff;
    }
    if let Some(codes) = command.get_after_help() {
        roff.control("SH", ["EXIT STATUS"]);
        roff.text([roman(codes.to_string())]);
    }
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        (
            DEFAULT_PATH,
            "the configuration; config.d/*.toml beside it comes after it, by name",
        ),
        (
            "/usr/share/doc/frr-offload",
            "the whole description (README), and what FRR needs (examples)",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("frr-offload.toml"),
        roman("(5), "),
        bold("vtysh"),
        roman("(1), "),
        bold("ip-route"),
        roman("(8), "),
        bold("tc-flower"),
        roman("(8)"),
    ]);
    roff
}
