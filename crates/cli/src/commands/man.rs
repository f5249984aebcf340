//! `rota man`: manual pages.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};

use super::App;
use crate::trouble::{Result, Trouble};

/// `rota man`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota man ~/.local/share/man/man1 && man rota-job-ls")]
pub(crate) struct ManArgs {
    /// Where the pages go; made if it does not exist
    dir: PathBuf,
}

/// Writes one page per command.
pub(crate) fn man(app: &App, args: &ManArgs) -> Result<u8> {
    std::fs::create_dir_all(&args.dir).map_err(|error| Trouble::file(&args.dir, &error))?;
    let mut root = crate::args::Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = 0_usize;
    write(&root, "rota", &args.dir, &mut pages)?;
    let dir = args.dir.display().to_string();
    let data = serde_json::json!({ "dir": dir, "pages": pages });
    app.out.answer(&data, &dir, &format!("wrote {pages} pages to {dir}"))?;
    Ok(0)
}

fn write(command: &clap::Command, name: &str, dir: &Path, pages: &mut usize) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Trouble::file(&path, &error))?;
    std::fs::write(&path, page).map_err(|error| Trouble::file(&path, &error))?;
    *pages += 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, &format!("{name}-{}", below.get_name()), dir, pages)?;
    }
    Ok(())
}
