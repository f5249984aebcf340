//! Errors as people see them: what, what to do, where to read on; and the exit code.

use rota_api::{ErrorCode, Mistake, Problem};

use crate::screen::{Screen, clean};

/// A result of a command.
pub(crate) type Result<T> = std::result::Result<T, Trouble>;

/// A command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// Replaces the code's own hint.
    pub(crate) hint: Option<String>,
    pub(crate) mistakes: Vec<Mistake>,
    /// Replaces the code's own exit code.
    pub(crate) exit: Option<u8>,
}

impl Trouble {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, mistakes: Vec::new(), exit: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message)
    }

    /// A file that can't be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(ErrorCode::FileUnreadable, format!("{}: {error}", path.display()))
    }

    pub(crate) fn mistakes(mistakes: Vec<Mistake>) -> Self {
        let message = match mistakes.len() {
            1 => "the job is not valid".to_owned(),
            count => format!("the job is not valid: {count} problems"),
        };
        Self { mistakes, ..Self::new(ErrorCode::InvalidJob, message) }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.unwrap_or_else(|| self.code.exit_code())
    }

    /// Writes `error:`, `hint:` and `see:` lines to standard error.
    pub(crate) fn print(&self, screen: &Screen) {
        if self.message.is_empty() {
            return; // nobody reads any more
        }
        // A single mistake without a place says no more than the message.
        let several = match self.mistakes.as_slice() {
            [only] if self.message.ends_with(&only.message) && only.line.is_none() => &[],
            all => all,
        };
        for mistake in several {
            screen.note(&mistake_line(mistake));
            if !mistake.hint.is_empty() {
                screen.note(&format!("  {} {}", screen.dim("hint:"), clean(&mistake.hint)));
            }
        }
        screen.note(&format!("{} {}", screen.red("error:"), clean(&self.message)));
        let own = self.mistakes.first().map(|only| only.hint.as_str());
        let own = own.filter(|hint| several.is_empty() && !hint.is_empty());
        let hint = own.or(self.hint.as_deref()).unwrap_or_else(|| self.code.hint());
        if !hint.is_empty() {
            screen.note(&format!("{}  {}", screen.dim("hint:"), clean(hint)));
        }
        screen.note(&format!("{}   rota explain {}", screen.dim("see:"), self.code));
    }
}

/// One mistake with its place: `file:3:8: /task/0/retry: …`.
pub(crate) fn mistake_line(mistake: &Mistake) -> String {
    let mut place = mistake.file.clone().unwrap_or_default();
    for number in [mistake.line, mistake.column].into_iter().flatten() {
        if !place.is_empty() {
            place.push(':');
        }
        place.push_str(&number.to_string());
    }
    let parts = [place, mistake.pointer.clone(), mistake.message.clone()];
    let full = parts.iter().filter(|part| !part.is_empty()).map(|part| clean(part));
    full.collect::<Vec<_>>().join(": ")
}

impl From<rota_client::Error> for Trouble {
    fn from(error: rota_client::Error) -> Self {
        let code = error.code();
        match error {
            rota_client::Error::Problem(problem) => Self::from(*problem),
            other => Self::new(code, other.to_string()),
        }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        let code = problem.error_code().unwrap_or(ErrorCode::InvalidAnswer);
        let mut message = problem.to_string();
        if let (ErrorCode::Internal, Some(id)) = (code, &problem.request_id) {
            message = format!("{message} (request {id})");
        }
        let hint = (!problem.hint.is_empty()).then_some(problem.hint);
        Self { hint, mistakes: problem.errors, ..Self::new(code, message) }
    }
}

impl From<rota_identity::IdentityError> for Trouble {
    fn from(error: rota_identity::IdentityError) -> Self {
        let text = error.to_string();
        let (message, hint) = text.split_once("; ").unwrap_or((&text, ""));
        let trouble = Self::new(ErrorCode::InvalidConfig, message);
        if hint.is_empty() { trouble } else { trouble.hint(hint) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_printed_with_everything_that_is_known_of_its_place() {
        let bare = Mistake::new("/task/0", "wrong", "");
        assert_eq!(mistake_line(&bare), "/task/0: wrong");
        let placed =
            Mistake { file: Some("a.toml".to_owned()), line: Some(3), column: Some(8), ..bare };
        assert_eq!(mistake_line(&placed), "a.toml:3:8: /task/0: wrong");
    }
}
