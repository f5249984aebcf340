//! Random histories: invariants hold after each entry, images are faithful, and equal logs give equal states.

mod world;

use rota_core::State;
use rota_core::image::{BadImage, Record};
use world::history;

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
