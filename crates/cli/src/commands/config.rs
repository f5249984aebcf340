//! `rota config`: the settings of this command line.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::App;
use crate::config::Origin;
use crate::output::align;
use crate::trouble::Result;

/// `rota config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show what applies, and where it comes from
    Show(ShowArgs),
}

/// `rota config show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota config show --origin
  rota config show --context lab -o json

The configuration file is ~/.config/rota/config.toml, or the one that ROTA_CONFIG names:

  current = \"lab\"

  [context.lab]
  server = \"http://127.0.0.1:7600\"
  output = \"table\"
  timeout = \"30s\"

A flag counts more than an environment variable, which counts more than the context.")]
pub(crate) struct ShowArgs {
    /// Say where each setting comes from
    #[arg(long)]
    origin: bool,
}

/// One setting.
#[derive(Debug, Serialize)]
struct Shown {
    name: &'static str,
    value: String,
    origin: Origin,
}

/// Runs a verb on the configuration.
pub(crate) fn dispatch(app: &App, command: &ConfigCommand) -> Result<u8> {
    let ConfigCommand::Show(args) = command;
    let config = &app.config;
    let path = config.path.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
    let (context, named) = match &config.context {
        Some(context) => (context.value.clone(), context.origin.clone()),
        None => ("-".to_owned(), Origin::Default),
    };
    let format = serde_json::to_value(config.output.value).ok();
    let format = format.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let timeout =
        rota_types::Span(u64::try_from(config.timeout.value.as_micros()).unwrap_or(u64::MAX));
    let settings = [
        Shown { name: "file", value: path, origin: Origin::Default },
        Shown { name: "context", value: context, origin: named },
        Shown {
            name: "server",
            value: config.servers.value.join(","),
            origin: config.servers.origin.clone(),
        },
        Shown { name: "output", value: format, origin: config.output.origin.clone() },
        Shown {
            name: "timeout",
            value: timeout.to_string(),
            origin: config.timeout.origin.clone(),
        },
    ];
    let row = |setting: &Shown| {
        let mut row = vec![setting.name.to_owned(), setting.value.clone()];
        if args.origin {
            row.push(app.screen().faint(&origin(&setting.origin)));
        }
        row
    };
    app.out.answer(&settings, &config.servers.value.join(","), &align(settings.iter().map(row)))?;
    Ok(0)
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "flag".to_owned(),
        Origin::Environment(name) => format!("environment: {name}"),
        Origin::File(path) => format!("file: {}", path.display()),
        Origin::Default => "default".to_owned(),
    }
}
