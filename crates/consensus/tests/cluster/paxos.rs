//! Clusters of Paxos logs under simulated faults.

use crate::common::Paxos;
use rota_ports::contract::{Faults, Options, Report, Weather, run};

fn run_all(seeds: std::ops::Range<u64>, options: impl Fn(u64) -> Options) -> Report {
    let mut sum = Report::default();
    for seed in seeds {
        sum.add(&run::<Paxos>(options(seed)).unwrap_or_else(|error| panic!("{error}")));
    }
    sum
}

#[test]
fn a_healthy_cluster_elects_once_and_serves() {
    let quiet = |seed| Options {
        faults: Faults::default(),
        weather: Weather { in_order: true, ..Weather::default() },
        ..Options::of(seed)
    };
    for seed in 0..30 {
        let report = run_all(seed..seed + 1, quiet);
        assert!(report.elections <= 2, "seed {seed}: {report:?}");
        assert!(report.recovery_micros < 100_000, "{report:?}");
    }
}

#[test]
fn faulty_clusters_keep_the_contract_and_recover() {
    let sum = run_all(0..400, Options::of);
    // A run in which nothing happened proves nothing.
    let Report { acknowledged, reads, elections, crashes, partitions, .. } = sum;
    assert!(acknowledged > 50_000 && reads > 30_000, "{sum:?}");
    assert!(elections > 500 && crashes > 500 && partitions > 400, "{sum:?}");
    assert!(sum.pauses > 100 && sum.installs > 30 && sum.transfers > 50, "{sum:?}");
}

/// A server that granted a lease and was being brought up to date took part in the next election all the same.
#[test]
fn who_granted_a_lease_does_not_campaign_while_it_catches_up() {
    run::<Paxos>(Options::of(23)).unwrap_or_else(|error| panic!("{error}"));
}

/// The last acceptance before a silence was lost, and nothing was decided ever after.
#[test]
fn a_lost_acceptance_is_made_good_without_further_proposals() {
    for seed in [7_675, 8_592, 8_640, 8_856, 10_116] {
        run::<Paxos>(Options::of(seed)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The log was cut between a promise and its answer, and the answer left out what was gone.
#[test]
fn promises_that_were_taken_in_are_answered_in_full_whatever_is_compacted() {
    run::<Paxos>(Options::of(17_909)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let twice = [run::<Paxos>(Options::of(seed)), run::<Paxos>(Options::of(seed))];
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
}
