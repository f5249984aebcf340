//! Servers come and go under numbers that are never given out twice, and the feature level rises when all of them understand it.

mod world;

use std::sync::Arc;

use rota_core::command::{AttemptEnd, Command, Outcome, Rejection, Reply};
use rota_core::event::Event;
use rota_core::kv::{AcquireLock, KvCommand, KvReply};
use rota_core::server::{ServerCommand, ServerSpec};
use rota_types::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, SERVERS_MAX};
use rota_types::{ServerId, Span};
use world::{World, attempt, job, node, task};

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
fn a_state_that_goes_on_in_another_cluster_shares_no_number_with_the_old_one() {
    let mut world = World::new();
    assert!(announce(&mut world, spec(3, 1)).0.is_ok());
    assert!(world.apply(Command::RegisterNode(node("n", 4_000))).is_ok());
    assert!(world.submit(job(3)).is_ok());
    assert!(world.place(1, 0, 2, 1).is_ok());
    assert!(world.end(attempt(1, 1, 1), 1, AttemptEnd::Succeeded).is_ok());
    let open = || Command::Kv(KvCommand::OpenSession { ttl: Span::from_secs(60) });
    let opened = |outcome| match outcome {
        Ok(Reply::Kv(KvReply::Opened(session))) => session,
        other => panic!("{other:?}"),
    };
    let lock = |session| {
        let (lock, value) = ("l".into(), Arc::from(*b"me"));
        Command::Kv(KvCommand::AcquireLock(AcquireLock { lock, session, value, wait: false }))
    };
    let held = |outcome| match outcome {
        Ok(Reply::Kv(KvReply::Held { token })) => token.0,
        other => panic!("{other:?}"),
    };
    let old = opened(world.apply(open()));
    let token = held(world.apply(lock(old)));
    assert_eq!(ask(&mut world, ServerCommand::Renew), Ok(Reply::Done));
    assert_eq!(world.state.servers().count(), 0);
    assert!(!world.state.has_gone(ServerId(3)), "numbers begin anew");
    assert!(world.apply(lock(old)).is_err(), "the old session is over");
    let new = opened(world.apply(open()));
    assert!(new.0 > old.0 + (1 << 31));
    assert!(held(world.apply(lock(new))) > token + (1 << 31));
    // What ran is queued again, and what the old cluster may have started since means nothing.
    assert!(world.apply(Command::RegisterNode(node("n", 4_000))).is_ok());
    for stale in [attempt(1, 0, 1), attempt(1, 0, 2), attempt(1, 2, 1)] {
        let refused = Ok(Reply::Accepted { taken: 0, refused: 1 });
        assert_eq!(world.end(stale, 1, AttemptEnd::Succeeded), refused, "{stale:?}");
    }
    assert!(world.place(1, 0, 1, 1).is_ok() && world.place(1, 2, 1, 1).is_ok());
    let number = |index| world.state.task(task(1, index)).map(|task| task.attempts);
    assert_eq!([number(0), number(2)], [Some(1_000_001), Some(1_000_001)]);
    assert!(world.submit(job(1)).is_ok());
    assert!(world.state.jobs().next_back().is_some_and(|(id, _)| id.0 > 1_000_000));
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
