//! Clusters of Raft logs under simulated faults.

use crate::common::Raft;
use rota_ports::contract::{Faults, Options, Report, Shape, Weather, run};

fn run_all(seeds: std::ops::Range<u64>, options: impl Fn(u64) -> Options) -> Report {
    let mut sum = Report::default();
    for seed in seeds {
        sum.add(&run::<Raft>(options(seed)).unwrap_or_else(|error| panic!("{error}")));
    }
    sum
}

#[test]
fn faulty_clusters_keep_the_contract_and_recover() {
    let sum = run_all(0..400, Options::of);
    // A run in which nothing happened proves nothing.
    let Report { acknowledged, reads, elections, crashes, partitions, .. } = sum;
    assert!(acknowledged > 50_000 && reads > 30_000, "{sum:?}");
    assert!(elections > 500 && crashes > 500 && partitions > 400, "{sum:?}");
    assert!(sum.pauses > 100 && sum.installs > 30 && sum.changes > 100, "{sum:?}");
    assert!(sum.transfers > 50, "{sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let twice = [run::<Raft>(Options::of(seed)), run::<Raft>(Options::of(seed))];
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
}

#[test]
fn a_healthy_cluster_elects_once_and_serves() {
    let quiet = |seed| Options {
        faults: Faults::default(),
        weather: Weather::default(),
        ..Options::of(seed)
    };
    for seed in 0..30 {
        let report = run_all(seed..seed + 1, quiet);
        assert_eq!(report.elections, 1, "seed {seed}");
        assert!(report.recovery_micros < 100_000, "{report:?}");
    }
}

/// Also if the old leader, which does not, can still be heard.
#[test]
fn whoever_reaches_a_majority_gets_to_lead() {
    for shape in [Shape::Alone, Shape::Halves, Shape::Bridge, Shape::Chain, Shape::Star] {
        let cut = |seed| Options {
            servers: 5,
            faults_micros: 4_000_000,
            faults: Faults::default(),
            weather: Weather { in_order: true, ..Weather::default() },
            partition: Some(shape),
            ..Options::of(seed)
        };
        for seed in 0..20 {
            let report = run::<Raft>(cut(seed)).unwrap_or_else(|error| panic!("{error}"));
            assert!(report.gap_micros < 1_500_000, "{shape:?}, seed {seed}: {report:?}");
        }
    }
}
