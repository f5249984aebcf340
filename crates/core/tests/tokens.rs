//! Tokens are added, used up, revoked and forgotten; notes say who asked.

mod world;

use rota_core::command::{Command, QueueSpec, Rejection, Reply};
use rota_core::event::Event;
use rota_core::token::{Grant, Joins, Note, Noted, Role, TokenCommand, TokenSpec};
use rota_types::limits::{
    JOIN_USES_MAX, JOIN_VALIDITY_MAX, LOGINS_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, TOKENS_MAX,
};
use rota_types::{Span, Timestamp};
use world::World;

fn spec(id: &str, grant: Grant) -> TokenSpec {
    let expires_at = matches!(grant, Grant::Join { .. }).then_some(Timestamp(1_000));
    TokenSpec {
        id: id.into(),
        hash: [7; 32],
        grant,
        name: "ci".into(),
        expires_at,
        created_by: "admin".into(),
        session_of: None,
    }
}

fn reader(id: &str) -> TokenSpec {
    spec(id, Grant::Api(Role::Reader))
}

fn join(uses_left: u32) -> TokenSpec {
    spec("join", Grant::Join { joins: Joins::Worker, uses_left })
}

fn add(spec: TokenSpec) -> Command {
    Command::Tokens(TokenCommand::Add(spec))
}

fn revoke(id: &str) -> Command {
    Command::Tokens(TokenCommand::Revoke(id.into()))
}

fn take(id: &str) -> Command {
    Command::Tokens(TokenCommand::Use(id.into()))
}

fn unknown(id: &str) -> rota_core::command::Outcome {
    Err(Rejection::UnknownToken(id.into()))
}

#[test]
fn a_token_is_there_until_it_is_revoked() {
    let mut world = World::new();
    let added = world.entry(vec![add(reader("a"))]);
    assert_eq!(added.outcomes, vec![Ok(Reply::Done)]);
    assert_eq!(added.events, vec![Event::TokenAdded("a".into())]);
    assert_eq!(world.state.token("a").map(|token| &token.spec), Some(&reader("a")));
    let revoked = world.entry(vec![revoke("a"), revoke("a")]);
    assert_eq!(revoked.outcomes, vec![Ok(Reply::Done), unknown("a")]);
    assert_eq!(revoked.events, vec![Event::TokenRevoked("a".into())]);
    assert_eq!(world.state.tokens().count(), 0);
}

#[test]
fn the_same_token_is_added_once_and_another_one_under_its_id_is_refused() {
    let mut world = World::new();
    assert_eq!(world.apply(add(reader("a"))), Ok(Reply::Done));
    let again = world.entry(vec![add(reader("a"))]);
    assert_eq!((again.outcomes, again.events), (vec![Ok(Reply::Done)], vec![]));
    let other = TokenSpec { hash: [8; 32], ..reader("a") };
    assert_eq!(world.apply(add(other)), Err(Rejection::TokenExists("a".into())));
}

#[test]
fn a_join_token_is_used_as_often_as_it_may_and_then_gone() {
    let mut world = World::new();
    assert!(world.apply(add(join(2))).is_ok());
    assert_eq!(world.apply(take("join")), Ok(Reply::Done));
    let last = world.entry(vec![take("join"), take("join")]);
    assert_eq!(last.outcomes, vec![Ok(Reply::Done), unknown("join")]);
    assert_eq!(last.events, vec![Event::TokenRevoked("join".into())]);
    assert!(world.apply(add(reader("a"))).is_ok());
    assert_eq!(world.apply(take("a")), unknown("a"));
}

#[test]
fn a_token_that_has_ended_is_of_no_use_and_is_forgotten_when_another_one_comes() {
    let mut world = World::new();
    assert!(world.apply(add(join(5))).is_ok());
    world.steady = 999;
    assert_eq!(world.apply(take("join")), Ok(Reply::Done));
    world.steady = 1_000;
    assert_eq!(world.apply(take("join")), unknown("join"));
    assert_eq!(world.state.tokens().count(), 1);
    let added = world.entry(vec![add(reader("a"))]);
    let events = vec![Event::TokenRevoked("join".into()), Event::TokenAdded("a".into())];
    assert_eq!(added.events, events);
}

#[test]
fn what_can_not_be_a_token_is_refused() {
    let invalid = |what, why| Err(Rejection::Invalid { what, why });
    let on = |spec| World::new().apply(add(spec));
    assert_eq!(on(join(0)), invalid("token.uses", "must be at least 1"));
    let endless = TokenSpec { expires_at: None, ..join(1) };
    assert_eq!(on(endless), invalid("token.expires_at", "a join token has to end"));
    let ended = TokenSpec { expires_at: Some(Timestamp(0)), ..reader("a") };
    assert_eq!(on(ended), invalid("token.expires_at", "has passed already"));
    assert_eq!(on(reader("")), invalid("token.id", "must not be empty"));
}

#[test]
fn every_limit_of_tokens_holds_exactly() {
    let on = |spec| World::new().apply(add(spec));
    let edge = |what, max: u64, with: &dyn Fn(u64) -> TokenSpec| {
        assert_eq!(on(with(max - 1)), Ok(Reply::Done), "{what}");
        assert_eq!(on(with(max)), Ok(Reply::Done), "{what}");
        let refused = Err(Rejection::Limit { what, value: max + 1, limit: max });
        assert_eq!(on(with(max + 1)), refused);
    };
    let text = |bytes: u64| Box::from("x".repeat(bytes as usize));
    let names = NAME_BYTES_MAX as u64;
    edge("token.id", names, &|bytes| TokenSpec { id: text(bytes), ..reader("a") });
    edge("token.name", names, &|bytes| TokenSpec { name: text(bytes), ..reader("a") });
    let by = |bytes| TokenSpec { created_by: text(bytes), ..reader("a") };
    edge("token.created_by bytes", names, &by);
    edge("token.uses", u64::from(JOIN_USES_MAX), &|uses| join(uses as u32));
    let valid = |span| TokenSpec { expires_at: Some(Timestamp(0).plus(Span(span))), ..join(1) };
    edge("validity of a join token in microseconds", JOIN_VALIDITY_MAX.micros(), &valid);
    let mut world = World::new();
    let many = (1..TOKENS_MAX).map(|number| add(reader(&format!("t{number}")))).collect();
    assert!(world.entry(many).outcomes.iter().all(Result::is_ok));
    assert_eq!(world.apply(add(reader("last"))), Ok(Reply::Done));
    let (value, limit) = (TOKENS_MAX as u64 + 1, TOKENS_MAX as u64);
    let refused = Err(Rejection::Limit { what: "tokens", value, limit });
    assert_eq!(world.apply(add(reader("beyond"))), refused);
}

#[test]
fn a_note_says_who_asked_for_the_commands_before_it_and_how_many_were_refused() {
    let mut world = World::new();
    let note = Note {
        who: "ci".into(),
        source: "192.0.2.7".into(),
        action: "POST /v1/queues".into(),
        commands: 2,
    };
    let create = |name: &str| Command::CreateQueue(QueueSpec::named(name));
    let done = world.entry(vec![
        create("default"),
        create("a"),
        create("default"),
        Command::Note(note.clone()),
        create("b"),
    ]);
    let noted = Event::Noted(Box::new(Noted { note: note.clone(), refused: 1 }));
    let configured = |name: &str| Event::QueueConfigured(name.into());
    assert_eq!(done.events, vec![configured("a"), noted, configured("b")]);
    assert_eq!(done.outcomes.len(), 5);
    let padded = |bytes: usize| {
        let rest = bytes - note.who.len() - note.source.len();
        Command::Note(Note { action: "x".repeat(rest).into(), ..note.clone() })
    };
    assert_eq!(world.apply(padded(NOTE_BYTES_MAX - 1)), Ok(Reply::Done));
    assert_eq!(world.apply(padded(NOTE_BYTES_MAX)), Ok(Reply::Done));
    let (value, limit) = (NOTE_BYTES_MAX as u64 + 1, NOTE_BYTES_MAX as u64);
    let refused = Err(Rejection::Limit { what: "note bytes", value, limit });
    assert_eq!(world.apply(padded(NOTE_BYTES_MAX + 1)), refused);
}

/// A session of the token `of` that ends then.
fn session(id: &str, of: &str, end: u64) -> TokenSpec {
    TokenSpec { session_of: Some(of.into()), expires_at: Some(Timestamp(end)), ..reader(id) }
}

#[test]
fn a_session_goes_with_its_token_and_not_the_other_way_round() {
    let mut world = World::new();
    for spec in [reader("a"), reader("b"), session("s", "a", 900), session("t", "b", 900)] {
        assert_eq!(world.apply(add(spec)), Ok(Reply::Done));
    }
    assert_eq!(world.apply(revoke("t")), Ok(Reply::Done));
    assert!(world.state.token("b").is_some());
    let revoked = world.entry(vec![revoke("a")]);
    let gone = ["a", "s"].map(|id| Event::TokenRevoked(id.into()));
    assert_eq!((revoked.outcomes, revoked.events), (vec![Ok(Reply::Done)], gone.to_vec()));
    assert_eq!(world.state.tokens().count(), 1);
}

#[test]
fn a_session_may_do_no_more_than_its_token_and_for_no_longer() {
    let mut world = World::new();
    let ending = TokenSpec { expires_at: Some(Timestamp(500)), ..reader("a") };
    for spec in [ending, reader("endless"), join(1), session("s", "a", 500)] {
        assert_eq!(world.apply(add(spec)), Ok(Reply::Done));
    }
    let invalid = |why| Err(Rejection::Invalid { what: "token.session_of", why });
    let admin = TokenSpec { grant: Grant::Api(Role::Admin), ..session("y", "a", 400) };
    let endless = TokenSpec { expires_at: None, ..session("y", "endless", 1) };
    let cases = [
        (session("x", "a", 499), Ok(Reply::Done)),
        (session("y", "a", 501), invalid("a session ends with its token at the latest")),
        (endless, invalid("a session has to end")),
        (admin, invalid("a session may do what its token may")),
        (session("y", "s", 400), invalid("only the holder of a token of the API can log in")),
        (session("y", "join", 400), invalid("only the holder of a token of the API can log in")),
        (session("y", "nobody", 400), unknown("nobody")),
    ];
    for (spec, outcome) in cases {
        assert_eq!(world.apply(add(spec.clone())), outcome, "{spec:?}");
    }
}

#[test]
fn the_session_that_ends_first_makes_room_for_the_next_one_of_its_token() {
    let mut world = World::new();
    world.apply(add(reader("a"))).expect("is added");
    world.apply(add(reader("b"))).expect("is added");
    world.apply(add(session("of-b", "b", 1))).expect("is added");
    let sessions = |world: &World| {
        world.state.tokens().filter(|token| token.spec.session_of.as_deref() == Some("a")).count()
    };
    for number in 0..LOGINS_MAX as u64 {
        world.apply(add(session(&format!("s{number}"), "a", 900 - number))).expect("is added");
        assert_eq!(sessions(&world), number as usize + 1);
    }
    let last = format!("s{}", LOGINS_MAX - 1);
    let added = world.entry(vec![add(session("next", "a", 999))]);
    let events = vec![Event::TokenRevoked(last.into()), Event::TokenAdded("next".into())];
    assert_eq!(added.events, events);
    assert_eq!((sessions(&world), world.state.token("of-b").is_some()), (LOGINS_MAX, true));
}
