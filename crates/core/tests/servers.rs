//! Servers come and go under numbers that are never given out twice, and the feature level rises when all of them understand it.

mod world;

use rota_core::command::{Command, Outcome, Rejection, Reply};
use rota_core::event::Event;
use rota_core::server::{ServerCommand, ServerSpec};
use rota_types::ServerId;
use rota_types::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, SERVERS_MAX};
use world::World;

fn spec(id: u64, level: u32) -> ServerSpec {
    let address = format!("http://10.0.0.{id}:7600").into();
    ServerSpec { id: ServerId(id), address, version: "1.0.0".into(), level }
}

fn announce(world: &mut World, spec: ServerSpec) -> (Outcome, Vec<Event>) {
    let mut applied = world.entry(vec![Command::Servers(ServerCommand::Announce(spec))]);
    (applied.outcomes.remove(0), applied.events)
}

fn ask(world: &mut World, command: ServerCommand) -> Outcome {
    world.apply(Command::Servers(command))
}

fn add(world: &mut World) -> Outcome {
    ask(world, ServerCommand::Add { address: "http://new:7600".into() })
}

#[test]
fn a_server_that_says_the_same_again_changes_nothing() {
    let mut world = World::new();
    let known = Ok(Reply::Server(ServerId(1)));
    let changed = vec![Event::ServerChanged(ServerId(1))];
    assert_eq!(announce(&mut world, spec(1, 1)), (known.clone(), changed.clone()));
    assert_eq!(announce(&mut world, spec(1, 1)), (known.clone(), Vec::new()));
    let newer = ServerSpec { version: "1.1.0".into(), ..spec(1, 1) };
    assert_eq!(announce(&mut world, newer.clone()), (known, changed));
    assert_eq!(world.state.server(ServerId(1)).map(|server| &server.spec), Some(&newer));
}

#[test]
fn the_number_of_a_removed_server_is_never_given_out_again() {
    let mut world = World::new();
    for id in 1..=3 {
        assert!(announce(&mut world, spec(id, 1)).0.is_ok());
    }
    assert_eq!(add(&mut world), Ok(Reply::Server(ServerId(4))));
    assert_eq!(ask(&mut world, ServerCommand::Remove(ServerId(4))), Ok(Reply::Done));
    let gone = Err(Rejection::UnknownServer(ServerId(4)));
    assert_eq!(ask(&mut world, ServerCommand::Remove(ServerId(4))), gone);
    assert_eq!(announce(&mut world, spec(4, 1)).0, gone);
    assert_eq!(add(&mut world), Ok(Reply::Server(ServerId(5))));
    let ids: Vec<u64> = world.state.servers().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [1, 2, 3, 5]);
}

#[test]
fn founders_announce_themselves_in_any_order_and_numbers_go_on_behind_them() {
    let mut world = World::new();
    for id in [3, 1, 2] {
        assert_eq!(announce(&mut world, spec(id, 1)).0, Ok(Reply::Server(ServerId(id))));
    }
    assert!(!world.state.has_gone(ServerId(2)) && !world.state.has_gone(ServerId(4)));
    assert_eq!(ask(&mut world, ServerCommand::Remove(ServerId(2))), Ok(Reply::Done));
    assert!(world.state.has_gone(ServerId(2)) && !world.state.has_gone(ServerId(3)));
    assert_eq!(announce(&mut world, spec(2, 1)).0, Err(Rejection::UnknownServer(ServerId(2))));
    assert_eq!(add(&mut world), Ok(Reply::Server(ServerId(4))));
}

#[test]
fn the_level_rises_as_far_as_every_server_understands_it_and_never_falls() {
    let mut world = World::new();
    assert!(announce(&mut world, spec(1, 3)).0.is_ok());
    assert!(announce(&mut world, spec(2, 2)).0.is_ok());
    let raise = |world: &mut World, level| ask(world, ServerCommand::RaiseLevel(level));
    assert_eq!(raise(&mut world, 3), Err(Rejection::Limit { what: "level", value: 3, limit: 2 }));
    assert_eq!(raise(&mut world, 2), Ok(Reply::Done));
    assert_eq!(raise(&mut world, 1), Ok(Reply::Done));
    assert_eq!(world.state.level(), 2);
    let old = announce(&mut world, spec(2, 1)).0;
    assert!(matches!(old, Err(Rejection::Invalid { what: "server.level", .. })), "{old:?}");
    let old = announce(&mut world, spec(3, 1)).0;
    assert!(matches!(old, Err(Rejection::Invalid { what: "server.level", .. })), "{old:?}");
}

#[test]
fn servers_and_what_they_say_are_limited() {
    let mut world = World::new();
    for count in 1..=SERVERS_MAX {
        assert!(add(&mut world).is_ok(), "{count}");
    }
    let (value, limit) = (SERVERS_MAX as u64 + 1, SERVERS_MAX as u64);
    assert_eq!(add(&mut world), Err(Rejection::Limit { what: "servers", value, limit }));
    let text = |length: usize| "x".repeat(length).into_boxed_str();
    for (length, fits) in [
        (0, false),
        (1, true),
        (ADDRESS_BYTES_MAX - 1, true),
        (ADDRESS_BYTES_MAX, true),
        (ADDRESS_BYTES_MAX + 1, false),
    ] {
        let announced = announce(&mut world, ServerSpec { address: text(length), ..spec(1, 1) });
        assert_eq!(announced.0.is_ok(), fits, "address of {length}");
        let command = ServerCommand::Add { address: text(length) };
        let outcome = ask(&mut World::new(), command);
        assert_eq!(outcome.is_ok(), fits, "address of {length}");
    }
    for (length, fits) in
        [(NAME_BYTES_MAX - 1, true), (NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)]
    {
        let announced = announce(&mut world, ServerSpec { version: text(length), ..spec(1, 1) });
        assert_eq!(announced.0.is_ok(), fits, "version of {length}");
    }
}
