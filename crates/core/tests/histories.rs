//! Random histories: invariants hold after each entry, images are faithful, and equal logs give equal states.

mod world;

use rota_core::State;
use rota_core::command::{Command, Entry, SubmitJobs};
use rota_core::image::{BadImage, Record};
use world::{history, job};

#[test]
fn an_image_of_any_state_restores_to_the_same_state() {
    for seed in 0..100 {
        let mut step = 0;
        history(seed, 150, |world, _| {
            step += 1;
            if step % 15 == 0 {
                let records: Vec<Record> = world.state.records().collect();
                let copy = State::restore(records.iter().cloned().map(Ok::<_, BadImage>))
                    .expect("an own image");
                assert_eq!(copy.check(), vec![], "seed {seed}");
                assert_eq!(copy.records().collect::<Vec<_>>(), records, "seed {seed}");
                assert_eq!(copy.digest(), world.state.digest(), "seed {seed}");
            }
        });
    }
}

#[test]
fn equal_logs_give_equal_events_and_digests() {
    let run = |seed| {
        let mut all = Vec::new();
        let world = history(seed, 100, |world, applied| {
            all.push((applied.clone(), world.state.digest()));
        });
        (all, world.state.digest())
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn equal_states_give_equal_samples_whatever_their_size() {
    let submit = |state: &mut State, count: usize| {
        let one = SubmitJobs { jobs: vec![job(2)], idempotency: None };
        let commands = vec![Command::SubmitJobs(one); count];
        let index = state.index().next();
        state.apply(&Entry { commands, ..Entry::internal(index) });
    };
    for jobs in [1, 8_000] {
        let mut state = State::new();
        submit(&mut state, jobs);
        assert_eq!(state.is_walked_within(1 << 20), jobs == 1);
        let records = state.records().map(Ok::<_, BadImage>);
        let copy = State::restore(records).expect("it is restored");
        let samples = |state: &State| (0..20).map(|seed| state.sample(seed)).collect::<Vec<_>>();
        assert_eq!(samples(&copy), samples(&state), "{jobs} jobs");
        submit(&mut state, 1);
        assert_ne!(copy.sample(0), state.sample(0), "{jobs} jobs");
    }
}
