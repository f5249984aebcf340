//! `rota submit`: hands jobs to a server.

use clap::Args;
use rota_api::{JobFile, Submitted};
use rota_client::{Client, fresh_key};

use super::App;
use crate::commands::job::tell_end;
use crate::follow::{self, Progress};
use crate::job_args::JobArgs;
use crate::screen::{clean, several};
use crate::trouble::Result;

/// `rota submit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rota submit -- ./train.sh --epochs 10
  rota submit --name render --array 1-100%8 --retries 2 -- ./frame.sh {index}
  rota submit --cpus 4 --memory 8GiB --require zone=a --timeout 2h -- ./solve input.dat
  rota submit job.toml --queue nightly
  ID=$(rota submit -q -- make all) && rota job wait $ID")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Wait until the job is over, and exit with its status
    #[arg(long)]
    pub(crate) wait: bool,
    /// Only check the job, with the server; nothing is submitted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Submits what the arguments describe.
pub(crate) async fn submit(app: &App, args: SubmitArgs) -> Result<u8> {
    let here = std::env::current_dir().ok().filter(|_| app.server_is_here());
    let mut asked = args.job.jobs(here.as_deref())?;
    let client = app.client()?;
    if args.dry_run {
        return check(app, &client, &asked.jobs).await;
    }
    let key = args.job.idempotency_key.unwrap_or_else(fresh_key);
    let reply = match asked.jobs.as_mut_slice() {
        [job] => client.submit(job, &key).await?,
        _ => client.submit_all(asked.jobs, &key).await?,
    };
    let ids: Vec<u64> = reply.jobs.iter().map(|job| job.id).collect();
    let lines: Vec<String> = reply.jobs.iter().map(line).collect();
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    app.out.answer(&reply, &names.join("\n"), &lines.join("\n"))?;
    if reply.replayed {
        app.screen().remark("note: an earlier submit with this idempotency key had done it");
    }
    if !args.wait {
        if let Some(first) = names.first().filter(|_| app.screen().terminal) {
            app.screen().remark(&format!(
                "  follow: rota logs {first} -f     watch: rota job wait {first}"
            ));
        }
        return Ok(0);
    }
    let mut progress = Progress::new(app.screen(), true);
    let jobs = follow::wait(&client, &ids, &mut progress, None).await?;
    Ok(tell_end(app, &jobs))
}

/// Has a server check jobs without taking them in.
pub(crate) async fn check(app: &App, client: &Client, jobs: &[JobFile]) -> Result<u8> {
    for job in jobs {
        let checked = client.validate(job).await?;
        for warning in &checked.warnings {
            app.screen().remark(&format!("warning: {}", clean(warning)));
        }
        app.out.answer(&checked, "", &valid(checked.tasks))?;
    }
    Ok(0)
}

/// What `--dry-run` says of a job.
pub(crate) fn valid(tasks: u64) -> String {
    format!("valid: {}, nothing was submitted", several(tasks, "task"))
}

/// `job 17 render · 100 tasks · queue default`.
pub(crate) fn line(job: &Submitted) -> String {
    let (name, queue) = (clean(&job.name), clean(&job.queue));
    format!("job {} {name} · {} · queue {queue}", job.id, several(job.tasks, "task"))
}
