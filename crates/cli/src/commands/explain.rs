//! `rota explain`: error codes in words.

use clap::Args;
use rota_api::ErrorCode;
use serde::Serialize;

use super::App;
use crate::trouble::{Result, Trouble};

/// `rota explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota explain queue-full
  rota explain                 lists every code")]
pub(crate) struct ExplainArgs {
    /// An error code, as errors print it behind `see:`
    code: Option<String>,
}

/// A code of the catalogue.
#[derive(Debug, Serialize)]
struct Explained {
    code: &'static str,
    status: Option<u16>,
    exit_code: u8,
    title: &'static str,
    hint: &'static str,
    explanation: &'static str,
}

impl From<ErrorCode> for Explained {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.name(),
            status: code.status(),
            exit_code: code.exit_code(),
            title: code.title(),
            hint: code.hint(),
            explanation: code.explanation(),
        }
    }
}

/// Explains one code, or lists all.
pub(crate) fn explain(app: &App, args: &ExplainArgs) -> Result<u8> {
    let Some(text) = &args.code else {
        let all: Vec<Explained> = ErrorCode::ALL.iter().copied().map(Explained::from).collect();
        let row = |one: &Explained| {
            let status = one.status.map_or("-".to_owned(), |status| status.to_string());
            vec![one.code.to_owned(), status, one.exit_code.to_string(), one.title.to_owned()]
        };
        let table = crate::output::grid(["CODE", "HTTP", "EXIT", "MEANING"], all.iter().map(row));
        let codes: Vec<&str> = all.iter().map(|one| one.code).collect();
        app.out.answer(&all, &codes.join("\n"), &table)?;
        return Ok(0);
    };
    let code: ErrorCode = text.parse().map_err(|_| {
        let near = rota_api::suggest::nearest(text, ErrorCode::ALL.iter().map(|code| code.name()));
        let hint = near.map_or("`rota explain` lists every code".to_owned(), |near| {
            format!("did you mean {near}?")
        });
        Trouble::usage(format!("there is no error code \"{text}\"")).hint(hint)
    })?;
    app.out.answer(&Explained::from(code), code.name(), &page(code))?;
    Ok(0)
}

/// A code's explanation as a page.
pub(crate) fn page(code: ErrorCode) -> String {
    let status = code
        .status()
        .map_or("only on the command line".to_owned(), |status| format!("HTTP {status}"));
    format!(
        "{code} ({status}, exit code {})\n\n{}\n\n{}\n\nWhat to do: {}",
        code.exit_code(),
        code.title(),
        code.explanation(),
        code.hint()
    )
}
