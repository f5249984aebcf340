//! `rota completion`: scripts for shells.

use clap::{Args, CommandFactory};

use crate::output::written;
use crate::trouble::Result;

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

/// Prints the script.
pub(crate) fn completion(args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Cli::command(), "rota", &mut script);
    written(std::io::Write::write_all(&mut std::io::stdout().lock(), &script))?;
    Ok(0)
}
