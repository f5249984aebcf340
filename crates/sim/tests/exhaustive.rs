//! Every history of a tiny world.

use rota_sim::exhaustive::explore;

#[test]
fn no_history_of_five_entries_breaks_an_invariant() {
    let found = explore(5).unwrap_or_else(|what| panic!("{what}"));
    println!("{} states, {} transitions", found.states, found.transitions);
    assert!(found.states > 3_000, "the world has become too small: {found:?}");
}
