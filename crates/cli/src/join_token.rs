//! Tokens for joining on the command line.

use std::path::Path;

use rota_identity::JoinToken;

use crate::trouble::{Result, Trouble};

/// Reads the token that `flag` was given: itself, or `@` and the file that holds it. Other users of a machine see arguments.
pub(crate) fn read(flag: &str, given: &str) -> Result<JoinToken> {
    let text = match given.strip_prefix('@') {
        Some(file) => {
            let file = Path::new(file);
            std::fs::read_to_string(file).map_err(|error| Trouble::file(file, &error))?
        }
        None => given.to_owned(),
    };
    JoinToken::parse(text.trim()).map_err(|error| Trouble::usage(format!("{flag}: {error}")))
}
