//! Figures of the whole cluster.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use rota_api::{
    Amount, ClusterStats, DemandSupply, FailureOdds, Load, Moment, NodeCounts, Problem, QueueWaits,
};
use rota_core::stats::Totals;
use rota_types::Resource;

use super::App;
use super::present;
use super::problem::Answer;
use crate::core_thread::View;
use crate::metrics::{Counters, Waits};

/// Groups whose estimates one request adds up; beyond, the load is told for these.
const GROUPS_MAX: usize = 20_000;

/// Load, demand and supply, odds of failure, waits.
#[utoipa::path(get, path = "/v1/cluster/stats", tag = "cluster", operation_id = "clusterStats", responses(
    (status = 200, description = "The figures.", body = ClusterStats),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cluster_stats(State(app): State<App>) -> Answer<Json<ClusterStats>> {
    Ok(Json(app.core.query(stats).await?))
}

fn stats(view: &View<'_>) -> ClusterStats {
    let totals = view.state.totals();
    let (ended, failed) = view.metrics.ended.minute(view.steady);
    let queues = view.metrics.queue_waits.iter().filter_map(|(id, waits)| {
        let queue = view.state.queue(*id)?.spec.name.to_string();
        Some(QueueWaits { queue, wait: waits.percentiles() })
    });
    ClusterStats {
        at: Moment(crate::clock::wall()),
        index: view.state.index().0,
        jobs: view.state.job_count() as u64,
        counts: totals.tasks.into(),
        nodes: NodeCounts {
            ready: totals.nodes_ready,
            draining: totals.nodes_draining,
            lost: totals.nodes_lost,
        },
        capacity: present::amounts(&totals.supply),
        used: present::amounts(&totals.held),
        load: load(view, &totals),
        demand: demand(&totals),
        failure: odds(view, totals.tasks.live()),
        queues: queues.collect(),
        scheduling_delay: view.metrics.scheduling_delay.percentiles(),
        tasks_per_second: ended.max(failed) as f64 / 60.0,
        log_sync: Some(view.metrics.log_sync.percentiles()),
    }
}

/// L = ΣT/ΣP, with T = C/P for each task: the cpu time that live tasks are expected to need, over the cpus that there are.
fn load(view: &View<'_>, totals: &Totals) -> Option<Load> {
    let mut work = 0.0;
    let mut known = 0_u64;
    let mut without = 0_u64;
    let groups = view.state.jobs().flat_map(|(_, job)| job.groups.iter());
    for group in groups.take(GROUPS_MAX) {
        let live = group.counts().live();
        match group.terms.estimate {
            Some(estimate) => {
                known += live;
                let cpus = Amount(view.state.shape(group.shape).need.cpu_millis).as_f64();
                work += live as f64 * cpus * estimate.micros() as f64 / 1e6;
            }
            None => without += live,
        }
    }
    if known == 0 {
        return None;
    }
    let power = Amount(totals.supply.cpu_millis).as_f64();
    let seconds = if power > 0.0 { work / power } else { 0.0 };
    Some(Load {
        work_cpu_seconds: work,
        power_cpus: power,
        seconds,
        tasks_without_estimate: without,
    })
}

/// R = D/S for each resource.
fn demand(totals: &Totals) -> Vec<DemandSupply> {
    let mut resources: Vec<Resource> = totals.supply.kinds().collect();
    resources.extend(totals.demand.kinds().filter(|kind| totals.supply.amount(kind) == 0));
    resources
        .into_iter()
        .map(|resource| {
            let unit = |amount: u64| match resource {
                Resource::Memory => amount as f64,
                Resource::Cpu | Resource::Named(_) => Amount(amount).as_f64(),
            };
            let demand = unit(totals.demand.amount(&resource));
            let supply = unit(totals.supply.amount(&resource));
            let ratio = (supply > 0.0).then(|| demand / supply);
            DemandSupply { resource: resource.to_string(), demand, supply, ratio }
        })
        .collect()
}

/// 1 − (1 − p)ⁿ: how likely at least one of the live tasks fails its next attempt.
fn odds(view: &View<'_>, live: u64) -> FailureOdds {
    let Counters { attempts_succeeded, attempts_failed, .. } = view.metrics.counters;
    let sample = attempts_succeeded + attempts_failed;
    let attempt = if sample == 0 { 0.0 } else { attempts_failed as f64 / sample as f64 };
    let any = 1.0 - (1.0 - attempt).powf(live as f64);
    FailureOdds { attempt, tasks: live, any, sample }
}

/// Counters and gauges for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "cluster", operation_id = "metrics", responses(
    (status = 200, description = "The metrics in Prometheus' text format.", body = String, content_type = "text/plain"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn metrics(State(app): State<App>) -> Answer<Response> {
    let mut text = app.core.peek(render).await?;
    if let Some(secured) = &app.secured {
        let ends_at = secured.ends_at();
        put(
            &mut text,
            format_args!(
                "# HELP rota_certificate_ends_seconds When the server's certificate ends, as Unix time.\n# TYPE rota_certificate_ends_seconds gauge\nrota_certificate_ends_seconds {ends_at}\n"
            ),
        );
    }
    put(
        &mut text,
        format_args!(
            "# HELP rota_refused_total Requests and connections that were turned away.\n# TYPE rota_refused_total counter\n"
        ),
    );
    for (code, count) in app.refusals.counts() {
        put(&mut text, format_args!("rota_refused_total{{code=\"{code}\"}} {count}\n"));
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn render(view: &View<'_>) -> String {
    let mut text = String::new();
    let counters = &view.metrics.counters;
    for (name, help, value) in counters_of(counters) {
        put(
            &mut text,
            format_args!(
                "# HELP rota_{name} {help}\n# TYPE rota_{name} counter\nrota_{name} {value}\n"
            ),
        );
    }
    let totals = view.state.totals();
    let gauges = [
        ("log_index", "Last applied log index.", view.state.index().0),
        ("jobs_live", "Jobs that are not over.", view.state.job_count() as u64),
        ("tasks_queued", "Tasks that may run now.", totals.tasks.queued),
        ("tasks_waiting", "Tasks that wait for a pause to end.", totals.tasks.waiting),
        ("tasks_running", "Tasks with a live attempt.", totals.tasks.running),
        ("nodes_ready", "Nodes that take tasks.", totals.nodes_ready),
        ("nodes_draining", "Nodes that drain.", totals.nodes_draining),
        ("nodes_lost", "Nodes whose lease ran out.", totals.nodes_lost),
        ("nodes_connected", "Nodes whose worker has a session.", view.sessions.len() as u64),
    ];
    for (name, help, value) in gauges {
        put(
            &mut text,
            format_args!(
                "# HELP rota_{name} {help}\n# TYPE rota_{name} gauge\nrota_{name} {value}\n"
            ),
        );
    }
    let metrics = view.metrics;
    summary(&mut text, "scheduling_delay", "From ready to placed.", &metrics.scheduling_delay);
    summary(&mut text, "start_latency", "From placed to launched.", &metrics.start_latency);
    summary(&mut text, "run_time", "From launched to ended.", &metrics.run_time);
    summary(&mut text, "log_sync", "Writing and syncing the log.", &metrics.log_sync);
    text
}

fn counters_of(counters: &Counters) -> [(&'static str, &'static str, u64); 16] {
    let Counters {
        entries,
        commands,
        events,
        jobs_submitted,
        jobs_finished,
        attempts_created,
        attempts_succeeded,
        attempts_failed,
        attempts_cancelled,
        attempts_lost,
        attempts_recalled,
        nodes_lost,
        rejections,
        stale_reports,
        snapshots,
        snapshot_failures,
    } = *counters;
    [
        ("entries_total", "Log entries applied.", entries),
        ("commands_total", "Commands applied.", commands),
        ("events_total", "Events that became true.", events),
        ("jobs_submitted_total", "Jobs taken in.", jobs_submitted),
        ("jobs_finished_total", "Jobs that ended.", jobs_finished),
        ("attempts_created_total", "Attempts placed.", attempts_created),
        ("attempts_succeeded_total", "Attempts that succeeded.", attempts_succeeded),
        ("attempts_failed_total", "Attempts that failed.", attempts_failed),
        ("attempts_cancelled_total", "Attempts stopped on request.", attempts_cancelled),
        ("attempts_lost_total", "Attempts lost with their node.", attempts_lost),
        (
            "attempts_recalled_total",
            "Attempts taken back from their node before they ran.",
            attempts_recalled,
        ),
        ("nodes_lost_total", "Leases that ran out.", nodes_lost),
        ("rejections_total", "Commands refused.", rejections),
        ("stale_reports_total", "Reports about attempts that were not live.", stale_reports),
        ("snapshots_total", "Snapshots made.", snapshots),
        ("snapshot_failures_total", "Snapshots that failed.", snapshot_failures),
    ]
}

fn summary(text: &mut String, name: &str, help: &str, waits: &Waits) {
    let percentiles = waits.percentiles();
    put(
        text,
        format_args!("# HELP rota_{name}_seconds {help}\n# TYPE rota_{name}_seconds summary\n"),
    );
    for (quantile, millis) in
        [("0.5", percentiles.p50_ms), ("0.95", percentiles.p95_ms), ("0.99", percentiles.p99_ms)]
    {
        put(
            text,
            format_args!("rota_{name}_seconds{{quantile=\"{quantile}\"}} {}\n", millis / 1e3),
        );
    }
    let (sum, count) = (waits.sum_micros as f64 / 1e6, waits.count);
    put(text, format_args!("rota_{name}_seconds_sum {sum}\nrota_{name}_seconds_count {count}\n"));
}

fn put(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a String can't fail");
}
