//! The seeds that run with every change, and what they must reach.

use rota_sim::{
    Counters, Failure, Fault, Faults, Ground, Options, REQUIRED, REQUIRED_FULL, run, run_traced,
    shrink, subset, subset_full,
};

fn passes(options: &Options) -> rota_sim::Report {
    run(options).unwrap_or_else(|failure| {
        let smaller = shrink(failure, 100, |options| run(options).err());
        let Failure { options, at, what, .. } = *smaller;
        panic!("at {} ms: {what}\nreplay: cargo xtask sim --options {options}", at / 1_000)
    })
}

fn reaches(runs: impl Iterator<Item = Options>, required: &[&'static str]) {
    let mut counters = Counters::default();
    for options in runs {
        counters.merge(&passes(&options).counters);
    }
    println!("{counters}");
    assert_eq!(counters.missing(required), Vec::<&str>::new(), "situations that no seed reached");
}

#[test]
fn every_seed_of_the_subset_passes_and_all_rare_situations_are_reached() {
    reaches(subset(), &REQUIRED);
}

#[test]
fn the_same_holds_on_the_real_log_and_store() {
    reaches(subset_full(), &REQUIRED_FULL);
}

#[test]
fn a_seed_run_twice_leaves_the_same_trace() {
    let full = (0..4).map(Options::full).chain((0..2).map(Options::rough_full));
    for options in (0..6).map(Options::from_seed).chain(full) {
        let traces = [(); 2].map(|()| run_traced(&options).expect("the seed passes").trace);
        let [first, second] = &traces;
        let differs = first.iter().zip(second).position(|(left, right)| left != right);
        assert_eq!((differs, first.len()), (None, second.len()), "{options}");
    }
}

#[test]
fn each_kind_of_fault_alone_is_survived() {
    for fault in Fault::ALL {
        let faults = Faults::NONE.with(fault);
        passes(&Options { faults, ..Options::from_seed(fault as u64) });
        let ground = if (fault as u64).is_multiple_of(2) { Ground::Raft } else { Ground::Paxos };
        let short = Options { requests: 10, trouble_millis: 8_000, ..Options::full(1) };
        passes(&Options { faults, ground, servers: 3, ..short });
    }
}
