//! `docs/reference/cli.md`, made from the definition of the command line.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;

const HEAD: &str = include_str!("reference_head.txt");

/// One line of a table: pipes would end a cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// `-o`, `--output FORMAT`.
fn name(arg: &Arg) -> String {
    let mut names: Vec<String> =
        arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    for alias in arg.get_visible_aliases().unwrap_or_default() {
        names.push(format!("--{alias}"));
    }
    let values: Vec<&str> =
        arg.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str).collect();
    let value = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    if names.is_empty() {
        return format!("`{value}`");
    }
    if let (false, Some(last)) = (value.is_empty(), names.last_mut()) {
        last.push(' ');
        last.push_str(&value);
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn about(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        write!(text, ": {}", values.join(", ")).expect("a string takes text");
    }
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if arg.get_action().takes_values() && !default.is_empty() {
        write!(text, " [default: {}]", default.join(" ")).expect("a string takes text");
    }
    cell(&text)
}

fn table<'a>(title: &str, args: impl Iterator<Item = &'a Arg>, text: &mut String) {
    let rows: Vec<String> = args.map(|arg| format!("| {} | {} |", name(arg), about(arg))).collect();
    if !rows.is_empty() {
        write!(text, "\n| {title} | |\n|---|---|\n{}\n", rows.join("\n"))
            .expect("a string takes text");
    }
}

fn page(command: &Command, path: &str, text: &mut String) {
    let level = if path.contains(' ') { "###" } else { "##" };
    let heading = path.strip_prefix("rota ").unwrap_or(path);
    let level = if heading.contains(' ') { "####" } else { level };
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    write!(text, "\n{level} {path}\n\n{about}.\n\n```text\n{}\n```\n", usage.trim())
        .expect("a string takes text");
    let own = |arg: &&Arg| {
        !arg.is_hide_set()
            && !arg.is_global_set()
            && !["help", "version"].contains(&arg.get_id().as_str())
    };
    table("Argument", command.get_positionals().filter(own), text);
    table("Option", command.get_arguments().filter(own).filter(|arg| !arg.is_positional()), text);
    if path == "rota" {
        table("Global option", command.get_arguments().filter(|arg| arg.is_global_set()), text);
    } else if let Some(after) = command.get_after_help() {
        write!(text, "\n```text\n{}\n```\n", after.to_string().trim())
            .expect("a string takes text");
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        page(below, &format!("{path} {}", below.get_name()), text);
    }
}

/// The whole page.
fn reference() -> String {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut text = HEAD.to_owned();
    page(&root, "rota", &mut text);
    text
}

#[test]
fn the_reference_of_the_command_line_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let wanted = reference();
    if std::env::var_os("ROTA_BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/reference/cli.md is out of date: run ROTA_BLESS=1 cargo test -p rota reference, and commit it"
    );
}

#[test]
fn every_exit_code_is_in_the_reference() {
    let codes = rota_api::ErrorCode::ALL.iter().map(|code| code.exit_code());
    for code in
        codes.chain([rota_api::exit::PARTIAL, rota_api::exit::TROUBLE, rota_api::exit::INTERRUPTED])
    {
        assert!(HEAD.contains(&format!("\n| {code} |")), "exit code {code}");
    }
}
