//! The seeds that run with every change, and what they must reach.

use rota_sim::{Counters, Failure, Fault, Faults, Options, run, run_traced, shrink, subset};

fn passes(options: &Options) -> rota_sim::Report {
    run(options).unwrap_or_else(|failure| {
        let smaller = shrink(failure, 100, |options| run(options).err());
        let Failure { options, at, what, .. } = *smaller;
        panic!("at {} ms: {what}\nreplay: cargo xtask sim --options {options}", at / 1_000)
    })
}

#[test]
fn every_seed_of_the_subset_passes_and_all_rare_situations_are_reached() {
    let mut counters = Counters::default();
    for options in subset() {
        counters.merge(&passes(&options).counters);
    }
    println!("{counters}");
    assert_eq!(counters.missing(), Vec::<&str>::new(), "situations that no seed reached");
}

#[test]
fn a_seed_run_twice_leaves_the_same_trace() {
    for seed in 0..12 {
        let options = Options::from_seed(seed);
        let traces = [(); 2].map(|()| run_traced(&options).expect("the seed passes").trace);
        let [first, second] = &traces;
        let differs = first.iter().zip(second).position(|(left, right)| left != right);
        assert_eq!((differs, first.len()), (None, second.len()), "seed {seed}");
    }
}

#[test]
fn each_kind_of_fault_alone_is_survived() {
    for fault in Fault::ALL {
        for seed in 0..2 {
            let alone = Options { faults: Faults::NONE.with(fault), ..Options::from_seed(seed) };
            passes(&alone);
        }
    }
}
