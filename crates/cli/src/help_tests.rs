//! The help of every command, as it is printed.

use clap::CommandFactory;

use crate::args::Cli;

fn pages(command: &clap::Command, path: &str, text: &mut String) {
    let mut shown = command.clone().term_width(100);
    text.push_str(&format!("━━━ {path} ━━━\n{}\n", shown.render_long_help()));
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages(below, &format!("{path} {}", below.get_name()), text);
    }
}

/// Every command with its help.
fn root() -> clap::Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

#[test]
fn the_help_of_every_command_is_known() {
    let mut text = String::new();
    pages(&root(), "rota", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn every_command_has_examples() {
    fn check(command: &clap::Command, path: &str, shown_above: bool) {
        let below: Vec<&clap::Command> = command.get_subcommands().collect();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let shown = help.contains("Examples:");
        assert!(!below.is_empty() || shown || shown_above, "{path} has no examples");
        for one in below {
            // A noun may show the examples of its verbs itself; the list of all commands doesn't.
            check(one, &format!("{path} {}", one.get_name()), shown && path != "rota");
        }
    }
    check(&root(), "rota", false);
}

#[test]
fn the_error_catalogue_is_known() {
    let pages = rota_api::ErrorCode::ALL.iter().map(|code| crate::commands::explain::page(*code));
    insta::assert_snapshot!("errors", pages.collect::<Vec<_>>().join("\n\n━━━\n\n"));
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}
