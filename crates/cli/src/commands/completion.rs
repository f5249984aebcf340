//! `rota completion`: scripts for shells.

use clap::Args;
use clap_complete::env::Shells;

use crate::output::written;
use crate::trouble::{Result, Trouble};

/// `rota completion`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota completion bash > ~/.local/share/bash-completion/completions/rota
  rota completion zsh > ~/.zfunc/_rota
  rota completion fish > ~/.config/fish/completions/rota.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script. It has the shell ask this program, so that ids and names are those that the server knows at that moment.
pub(crate) fn completion(args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    let shell = args.shell.to_string();
    let registered = Shells::builtins()
        .completer(&shell)
        .ok_or_else(|| Trouble::usage(format!("{shell} can't be completed")))?
        .write_registration("COMPLETE", "rota", "rota", "rota", &mut script);
    written(registered)?;
    written(std::io::Write::write_all(&mut std::io::stdout().lock(), &script))?;
    Ok(0)
}
