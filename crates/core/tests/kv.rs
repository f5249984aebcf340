//! The key-value store: each command, each limit at −1, 0 and +1, and random histories against a naive twin.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::State;
use rota_core::command::{Command, Entry, Rejection, Reply};
use rota_core::event::Event;
use rota_core::image::{BadImage, Record, SessionRecord};
use rota_core::kv::{
    AcquireLock, ChangeKeys, Claim, Condition, KeyChange, KvCommand, KvEvent, KvRejection, KvReply,
    Lock, Pair,
};
use rota_types::limits::{
    BATCH_MAX, CLAIM_VALUE_BYTES_MAX, CLAIMS_MAX, KEY_BYTES_MAX, KEY_CHANGES_MAX,
    KEY_VALUE_BYTES_MAX, KEYS_BYTES_MAX, KEYS_DELETED_MAX, KEYS_MAX, LOCK_WAITERS_MAX,
    SESSION_KEYS_MAX, SESSION_TTL_MAX, SESSION_TTL_MIN, SESSIONS_MAX,
};
use rota_types::{LogIndex, Revision, SessionId, Span, Steady, Timestamp};
use world::{Random, World};

const SECOND: u64 = 1_000_000;

type Answer = Result<KvReply, Rejection>;

fn answer(outcome: Result<Reply, Rejection>) -> Answer {
    outcome.map(|reply| match reply {
        Reply::Kv(reply) => reply,
        other => panic!("{other:?}"),
    })
}

fn ask(world: &mut World, command: KvCommand) -> Answer {
    answer(world.apply(Command::Kv(command)))
}

/// The events of one command that has to succeed.
fn events(world: &mut World, command: Command) -> Vec<KvEvent> {
    let applied = world.entry(vec![command]);
    assert!(applied.outcomes[0].is_ok(), "{:?}", applied.outcomes);
    let events = applied.events.into_iter();
    events
        .map(|event| match event {
            Event::Kv(event) => event,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn put_bound(key: &str, value: &str, session: Option<u64>) -> KeyChange {
    let (value, session) = (Arc::from(value.as_bytes()), session.map(SessionId));
    KeyChange::Put { key: key.into(), value, session }
}

fn put(key: &str, value: &str) -> KeyChange {
    put_bound(key, value, None)
}

fn delete(key: &str) -> KeyChange {
    KeyChange::Delete { key: key.into() }
}

fn change(changes: Vec<KeyChange>) -> KvCommand {
    change_if(vec![], changes)
}

fn change_if(conditions: Vec<Condition>, changes: Vec<KeyChange>) -> KvCommand {
    KvCommand::Change(ChangeKeys { conditions, changes })
}

fn changed(revision: u64, deleted: u32) -> Answer {
    Ok(KvReply::Changed { revision: Revision(revision), deleted })
}

fn open(world: &mut World, seconds: u64) -> u64 {
    match ask(world, KvCommand::OpenSession { ttl: Span::from_secs(seconds) }) {
        Ok(KvReply::Opened(session)) => session.0,
        other => panic!("{other:?}"),
    }
}

fn acquire(lock: &str, session: u64, wait: bool) -> KvCommand {
    let (lock, session) = (lock.into(), SessionId(session));
    KvCommand::AcquireLock(AcquireLock { lock, session, value: Arc::from(*b"me"), wait })
}

fn release(lock: &str, session: u64) -> KvCommand {
    KvCommand::ReleaseLock { lock: lock.into(), session: SessionId(session) }
}

fn held(token: u64) -> Answer {
    Ok(KvReply::Held { token: Revision(token) })
}

fn keys(state: &State, prefix: &str, after: Option<&str>) -> Vec<String> {
    state.kv().list(prefix, after).map(|(key, _)| key.to_string()).collect()
}

fn refused(rejection: KvRejection) -> Answer {
    Err(Rejection::Kv(rejection))
}

#[test]
fn a_key_knows_when_it_came_when_it_changed_and_how_often() {
    let mut world = World::new();
    assert_eq!(ask(&mut world, change(vec![put("a", "1"), put("b", "1")])), changed(1, 0));
    assert_eq!(ask(&mut world, change(vec![put("a", "2")])), changed(2, 0));
    let (created, modified) = (Revision(1), Revision(2));
    let pair = Pair { value: Arc::from(*b"2"), session: None, created, modified, version: 2 };
    assert_eq!(world.state.kv().get("a"), Some(&pair));
    assert_eq!(ask(&mut world, change(vec![delete("a"), delete("c")])), changed(3, 1));
    assert_eq!(ask(&mut world, change(vec![delete("a")])), changed(3, 0));
    assert_eq!(ask(&mut world, change(vec![put("a", "3")])), changed(4, 0));
    let (created, modified) = (Revision(4), Revision(4));
    let pair = Pair { value: Arc::from(*b"3"), session: None, created, modified, version: 1 };
    assert_eq!(world.state.kv().get("a"), Some(&pair));
    assert_eq!((world.state.kv().key_count(), world.state.kv().usage().bytes), (2, 4));
}

#[test]
fn events_carry_what_watchers_need() {
    let mut world = World::new();
    let told = events(&mut world, Command::Kv(change(vec![put("a", "1"), put("b", "2")])));
    let pair = |value: &str| {
        let (created, modified) = (Revision(1), Revision(1));
        let value = Arc::from(value.as_bytes());
        Some(Box::new(Pair { value, session: None, created, modified, version: 1 }))
    };
    let event = |key: &str, revision, pair| KvEvent::KeyChanged {
        key: key.into(),
        revision: Revision(revision),
        pair,
    };
    assert_eq!(told, [event("a", 1, pair("1")), event("b", 1, pair("2"))]);
    let prefix = KvCommand::DeletePrefix { prefix: "".into(), at_most: 9 };
    let told = events(&mut world, Command::Kv(prefix.clone()));
    assert_eq!(told, [event("a", 2, None), event("b", 2, None)]);
    assert_eq!(events(&mut world, Command::Kv(prefix)), []);
    assert_eq!(world.state.kv().revision(), Revision(2));
}

#[test]
fn nothing_changes_unless_every_condition_holds() {
    let mut world = World::new();
    let absent = |key: &str| Condition::Absent { key: key.into() };
    let unchanged =
        |key: &str, since| Condition::Unchanged { key: key.into(), since: Revision(since) };
    let lost = |key: &str, found: Option<u64>| {
        refused(KvRejection::KeyChanged { key: key.into(), found: found.map(Revision) })
    };
    let cas = |conditions, value| change_if(conditions, vec![put("a", value), put("b", value)]);
    assert_eq!(ask(&mut world, cas(vec![unchanged("a", 0)], "0")), lost("a", None));
    assert_eq!(ask(&mut world, cas(vec![absent("a")], "1")), changed(1, 0));
    assert_eq!(ask(&mut world, cas(vec![absent("a")], "2")), lost("a", Some(1)));
    assert_eq!(ask(&mut world, cas(vec![unchanged("a", 1), absent("b")], "2")), lost("b", Some(1)));
    assert_eq!(ask(&mut world, cas(vec![unchanged("a", 1), absent("c")], "2")), changed(2, 0));
    assert_eq!(ask(&mut world, cas(vec![unchanged("a", 1)], "3")), lost("a", Some(2)));
    assert_eq!(world.state.kv().get("b").map(|pair| pair.value.as_ref()), Some(&b"2"[..]));
}

#[test]
fn a_write_can_depend_on_holding_a_lock() {
    let mut world = World::new();
    let (one, two) = (open(&mut world, 10), open(&mut world, 10));
    assert_eq!(ask(&mut world, acquire("l", one, true)), held(1));
    let fenced = |token| {
        let token = Revision(token);
        change_if(vec![Condition::Held { lock: "l".into(), token }], vec![put("a", "1")])
    };
    let lost = |found: Option<u64>| {
        refused(KvRejection::LockLost { lock: "l".into(), found: found.map(Revision) })
    };
    assert_eq!(ask(&mut world, fenced(1)), changed(2, 0));
    assert_eq!(ask(&mut world, acquire("l", two, true)), Ok(KvReply::Waiting { ahead: 0 }));
    assert_eq!(ask(&mut world, release("l", one)), Ok(KvReply::Done));
    assert_eq!(ask(&mut world, fenced(1)), lost(Some(3)));
    assert_eq!(ask(&mut world, release("l", two)), Ok(KvReply::Done));
    assert_eq!(ask(&mut world, fenced(3)), lost(None));
}

#[test]
fn lists_go_on_behind_their_last_key() {
    let mut world = World::new();
    let names = ["a", "a/b", "a/c", "ab", "b"];
    ask(&mut world, change(names.map(|name| put(name, "")).into())).expect("new keys");
    let state = &world.state;
    assert_eq!(keys(state, "", None), names);
    assert_eq!(keys(state, "a/", None), ["a/b", "a/c"]);
    assert_eq!(keys(state, "a/", Some("a/b")), ["a/c"]);
    assert_eq!(keys(state, "a/", Some("a")), ["a/b", "a/c"]);
    assert_eq!(keys(state, "a/", Some("b")), [""; 0]);
    assert_eq!(keys(state, "c", None), [""; 0]);
    let part = KvCommand::DeletePrefix { prefix: "a".into(), at_most: 3 };
    assert_eq!(ask(&mut world, part.clone()), changed(2, 3));
    assert_eq!(ask(&mut world, part.clone()), changed(3, 1));
    assert_eq!(ask(&mut world, part), changed(3, 0));
    assert_eq!(keys(&world.state, "", None), ["b"]);
}

#[test]
fn keys_end_with_their_session() {
    let mut world = World::new();
    let session = open(&mut world, 10);
    let bound = vec![put_bound("a", "1", Some(session)), put_bound("b", "1", Some(session))];
    assert_eq!(ask(&mut world, change(bound)), changed(1, 0));
    assert_eq!(ask(&mut world, change(vec![put("b", "2")])), changed(2, 0));
    let told = events(&mut world, Command::Kv(KvCommand::CloseSession(SessionId(session))));
    assert_eq!(
        told,
        [
            KvEvent::KeyChanged { key: "a".into(), revision: Revision(3), pair: None },
            KvEvent::SessionEnded { session: SessionId(session), expired: false },
        ]
    );
    assert_eq!(keys(&world.state, "", None), ["b"]);
    let unknown = refused(KvRejection::UnknownSession(SessionId(session)));
    assert_eq!(ask(&mut world, KvCommand::CloseSession(SessionId(session))), unknown);
    assert_eq!(ask(&mut world, change(vec![put_bound("a", "1", Some(session))])), unknown);
    assert_eq!(ask(&mut world, acquire("l", session, true)), unknown);
    assert_eq!(open(&mut world, 10), session + 1, "ids are not given out twice");
}

#[test]
fn a_session_ends_when_its_time_is_over_and_not_before() {
    let mut world = World::new();
    let (one, two) = (open(&mut world, 10), open(&mut world, 20));
    ask(&mut world, change(vec![put_bound("a", "1", Some(one))])).expect("an open session");
    assert_eq!(world.state.next_deadline(), Some(Steady(10 * SECOND)));
    world.steady = 6 * SECOND;
    let renew = KvCommand::RenewSessions(vec![SessionId(one), SessionId(9)]);
    assert_eq!(ask(&mut world, renew), Ok(KvReply::Renewed { over: vec![SessionId(9)] }));
    world.steady = 16 * SECOND - 1;
    assert_eq!(events(&mut world, Command::Tick), []);
    world.steady = 16 * SECOND;
    let told = events(&mut world, Command::Tick);
    assert_eq!(
        told,
        [
            KvEvent::KeyChanged { key: "a".into(), revision: Revision(2), pair: None },
            KvEvent::SessionEnded { session: SessionId(one), expired: true },
        ]
    );
    assert_eq!(world.state.next_deadline(), Some(Steady(20 * SECOND)));
    assert_eq!(world.state.kv().sessions_after(SessionId(0)).map(|(id, _)| id.0).next(), Some(two));
}

#[test]
fn a_lock_passes_in_the_order_of_the_claims_with_a_token_that_rises() {
    let mut world = World::new();
    let [one, two, three, four] = [10, 10, 5, 10].map(|seconds| open(&mut world, seconds));
    assert_eq!(ask(&mut world, acquire("l", one, false)), held(1));
    assert_eq!(ask(&mut world, acquire("l", one, true)), held(1), "a repetition is harmless");
    for (session, ahead) in [(two, 0), (three, 1), (four, 2), (three, 1)] {
        assert_eq!(ask(&mut world, acquire("l", session, true)), Ok(KvReply::Waiting { ahead }));
    }
    let passed = |revision, holder: Option<u64>| KvEvent::LockPassed {
        lock: "l".into(),
        revision: Revision(revision),
        holder: holder.map(SessionId),
        value: if holder.is_some() { Arc::from(*b"me") } else { Arc::default() },
    };
    assert_eq!(events(&mut world, Command::Kv(release("l", one))), [passed(2, Some(two))]);
    let no_claim = KvRejection::NoClaim { lock: "l".into(), session: SessionId(one) };
    assert_eq!(ask(&mut world, release("l", one)), refused(no_claim));
    world.steady = 5 * SECOND;
    let ended = KvEvent::SessionEnded { session: SessionId(three), expired: true };
    assert_eq!(events(&mut world, Command::Tick), [ended], "one that waits goes silently");
    let lock = world.state.kv().lock("l").expect("is held");
    assert_eq!((lock.place_of(SessionId(two)), lock.place_of(SessionId(four))), (Some(0), Some(1)));
    let told = events(&mut world, Command::Kv(KvCommand::CloseSession(SessionId(two))));
    let ended = KvEvent::SessionEnded { session: SessionId(two), expired: false };
    assert_eq!(told, [passed(3, Some(four)), ended]);
    assert_eq!(events(&mut world, Command::Kv(release("l", four))), [passed(4, None)]);
    assert_eq!((world.state.kv().lock_count(), world.state.kv().usage().bytes), (0, 0));
}

#[test]
fn a_claim_that_does_not_wait_is_refused_while_the_lock_is_held() {
    let mut world = World::new();
    let (one, two) = (open(&mut world, 10), open(&mut world, 10));
    assert_eq!(ask(&mut world, acquire("l", one, false)), held(1));
    let (holder, token) = (SessionId(one), Revision(1));
    let busy = refused(KvRejection::LockHeld { lock: "l".into(), holder, token });
    assert_eq!(ask(&mut world, acquire("l", two, false)), busy);
    assert_eq!(ask(&mut world, release("l", one)), Ok(KvReply::Done));
    assert_eq!(ask(&mut world, acquire("l", two, false)), held(3));
}

#[test]
fn keys_are_such_that_any_client_can_put_them_into_a_path() {
    let mut world = World::new();
    for key in ["a", "a/b.c", "ä/ö", "..a", "a b", "%2F"] {
        assert!(ask(&mut world, change(vec![put(key, "")])).is_ok(), "{key:?}");
    }
    for key in ["", "/a", "a/", "a//b", "a/../b", ".", "a/.", "a\nb"] {
        for command in [change(vec![put(key, "")]), change(vec![delete(key)])] {
            let answer = ask(&mut world, command);
            assert!(matches!(answer, Err(Rejection::Invalid { what: "key", .. })), "{key:?}");
        }
        let one = open(&mut world, 10);
        let answer = ask(&mut world, acquire(key, one, true));
        assert!(matches!(answer, Err(Rejection::Invalid { what: "lock", .. })), "{key:?}");
    }
    let invalid = |answer| match answer {
        Err(Rejection::Invalid { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(ask(&mut world, change(vec![]))), "changes");
    assert_eq!(invalid(ask(&mut world, change(vec![put("a", ""), delete("a")]))), "key");
    let none = KvCommand::DeletePrefix { prefix: "".into(), at_most: 0 };
    assert_eq!(invalid(ask(&mut world, none)), "at_most");
}

/// The outcome of one command on a copy of the state, without the slow check.
fn on(state: &State, command: KvCommand) -> Answer {
    let (index, at, steady) = (LogIndex(1), Timestamp(0), Steady(0));
    let entry = Entry { index, at, steady, commands: vec![Command::Kv(command)] };
    answer(state.clone().apply(&entry).outcomes.remove(0))
}

/// Tries the limit at −1, 0 and +1.
fn edge(max: u64, outcome: impl Fn(u64) -> Answer) {
    for value in [max - 1, max] {
        let outcome = outcome(value);
        assert!(outcome.is_ok(), "{value}: {outcome:?}");
    }
    match outcome(max + 1) {
        Err(Rejection::Limit { value, limit, .. }) => assert_eq!((value, limit), (max + 1, max)),
        other => panic!("{other:?}"),
    }
}

/// A state with these records beside those of a new one.
fn restored(records: impl Iterator<Item = Record>) -> State {
    let new: Vec<Record> = State::new().records().collect();
    let records = new.into_iter().chain(records).map(Ok::<_, BadImage>);
    State::restore(records).expect("a state")
}

fn session_record(id: u64) -> Record {
    let (ttl, deadline) = (Span::from_secs(10), Steady(u64::MAX));
    Record::Session(SessionRecord { id: SessionId(id), ttl, deadline, opened_at: Timestamp(0) })
}

fn pair_record(place: u64, bytes: usize, session: Option<u64>) -> Record {
    let (value, session) = (Arc::from(vec![0; bytes]), session.map(SessionId));
    let (created, modified) = (Revision(0), Revision(0));
    let pair = Pair { value, session, created, modified, version: 1 };
    Record::Pair(format!("{place:08}").into(), pair)
}

fn long(bytes: u64) -> String {
    "k".repeat(bytes as usize)
}

#[test]
fn what_one_request_may_hold_is_limited() {
    let mut world = World::new();
    let one = open(&mut world, 10);
    let state = &world.state;
    edge(KEY_BYTES_MAX as u64, |bytes| on(state, change(vec![put(&long(bytes), "")])));
    edge(KEY_BYTES_MAX as u64, |bytes| on(state, acquire(&long(bytes), one, true)));
    edge(KEY_BYTES_MAX as u64, |bytes| {
        on(state, KvCommand::DeletePrefix { prefix: long(bytes).into(), at_most: 1 })
    });
    edge(KEY_VALUE_BYTES_MAX as u64, |bytes| on(state, change(vec![put("a", &long(bytes))])));
    edge(KEY_CHANGES_MAX as u64, |count| {
        on(state, change((0..count).map(|place| put(&format!("k{place}"), "")).collect()))
    });
    edge(KEY_CHANGES_MAX as u64, |count| {
        let absent = Condition::Absent { key: "a".into() };
        on(state, change_if(vec![absent; count as usize], vec![put("a", "")]))
    });
    edge(u64::from(KEYS_DELETED_MAX), |count| {
        on(state, KvCommand::DeletePrefix { prefix: "".into(), at_most: count as u32 })
    });
    edge(BATCH_MAX as u64, |count| {
        on(state, KvCommand::RenewSessions(vec![SessionId(one); count as usize]))
    });
    edge(CLAIM_VALUE_BYTES_MAX as u64, |bytes| {
        let (lock, session) = ("l".into(), SessionId(one));
        let value = Arc::from(vec![0; bytes as usize]);
        on(state, KvCommand::AcquireLock(AcquireLock { lock, session, value, wait: true }))
    });
    edge(SESSION_TTL_MAX.0, |micros| on(state, KvCommand::OpenSession { ttl: Span(micros) }));
    for (micros, fits) in [(SESSION_TTL_MIN.0 - 1, false), (SESSION_TTL_MIN.0, true)] {
        assert_eq!(on(state, KvCommand::OpenSession { ttl: Span(micros) }).is_ok(), fits);
    }
}

#[test]
fn sessions_and_what_is_bound_to_them_are_limited() {
    edge(SESSIONS_MAX as u64, |count| {
        let state = restored((1..count).map(session_record));
        on(&state, KvCommand::OpenSession { ttl: SESSION_TTL_MIN })
    });
    edge(SESSION_KEYS_MAX as u64, |count| {
        let pairs = (1..count).map(|place| pair_record(place, 0, Some(1)));
        let state = restored([session_record(1)].into_iter().chain(pairs));
        let again = put_bound("00000001", "", Some(1));
        on(&state, change(vec![again, put_bound("new", "", Some(1))]))
    });
}

#[test]
fn claims_are_limited() {
    let claim = |session| Claim { session: SessionId(session), value: Arc::default() };
    let lock = |name: u64, holder, waiters: &[u64]| {
        let waiters = waiters.iter().map(|session| claim(*session)).collect();
        let lock = Lock { token: Revision(0), holder: claim(holder), waiters };
        Record::Lock(format!("l{name}").into(), lock)
    };
    edge(LOCK_WAITERS_MAX as u64, |count| {
        let sessions = (1..=count + 1).map(session_record);
        let waiters: Vec<u64> = (2..=count).collect();
        let state = restored(sessions.chain([lock(0, 1, &waiters)]));
        on(&state, acquire("l0", count + 1, true))
    });
    edge(CLAIMS_MAX as u64, |count| {
        let locks = (1..count).map(|name| lock(name, 1, &[]));
        let state = restored([session_record(1)].into_iter().chain(locks));
        on(&state, acquire("new", 1, true))
    });
}

#[test]
fn the_store_is_limited() {
    edge(KEYS_MAX as u64, |count| {
        let state = restored((1..count).map(|place| pair_record(place, 0, None)));
        on(&state, change(vec![put("00000001", ""), put("new", "")]))
    });
    let value = KEY_VALUE_BYTES_MAX;
    let each = value as u64 + 8;
    let whole = KEYS_BYTES_MAX / each;
    let state = restored((0..whole).map(|place| pair_record(place, value, None)));
    let left = KEYS_BYTES_MAX - whole * each;
    assert!((16..KEY_VALUE_BYTES_MAX as u64).contains(&left), "{left}");
    edge(KEYS_BYTES_MAX, |bytes| {
        let rest = bytes - whole * each;
        on(&state, change(vec![put("k", &long(rest - 1))]))
    });
    let state = restored(
        (0..whole).map(|place| pair_record(place, value, None)).chain([session_record(1)]),
    );
    let filled = |rest: u64| {
        let mut full = state.clone();
        let commands = vec![Command::Kv(change(vec![put("k", &long(rest - 1))]))];
        let (index, at, steady) = (LogIndex(1), Timestamp(0), Steady(0));
        full.apply(&Entry { index, at, steady, commands });
        full
    };
    edge(KEYS_BYTES_MAX, |bytes| on(&filled(bytes - whole * each - 3), acquire("l", 1, true)));
    let full = filled(left);
    let exchange = change(vec![delete("k"), put("l", &long(left - 1))]);
    assert!(on(&full, exchange).is_ok(), "what goes makes room for what comes");
}

#[test]
fn a_tick_ends_some_sessions_at_a_time() {
    let pairs = |session: u64| {
        (0..SESSION_KEYS_MAX as u64)
            .map(move |place| pair_record(session * 1_000_000 + place, 0, Some(session)))
    };
    let sessions = (1..=3).map(|id| {
        let (ttl, deadline, opened_at) = (Span::from_secs(10), Steady(0), Timestamp(0));
        Record::Session(SessionRecord { id: SessionId(id), ttl, deadline, opened_at })
    });
    let mut state = restored(sessions.chain(pairs(1)).chain(pairs(2)).chain(pairs(3)));
    for left in [2, 1, 0] {
        assert_eq!(state.next_deadline(), Some(Steady(0)));
        let (index, at, steady) = (LogIndex(1), Timestamp(0), Steady(0));
        state.apply(&Entry { index, at, steady, commands: vec![Command::Tick] });
        assert_eq!(state.kv().session_count(), left);
        assert_eq!(state.kv().key_count(), left * SESSION_KEYS_MAX);
    }
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn an_image_whose_keys_belong_to_nobody_is_refused() {
    let claim = Claim { session: SessionId(7), value: Arc::default() };
    let lock = Lock { token: Revision(0), holder: claim, waiters: Default::default() };
    for record in [pair_record(1, 0, Some(7)), Record::Lock("l".into(), lock)] {
        let new: Vec<Record> = State::new().records().collect();
        let records = new.into_iter().chain([record]).map(Ok::<_, BadImage>);
        let refused = State::restore(records).map(|_| ());
        assert_eq!(refused, Err(BadImage("a key or a lock belongs to no session")));
    }
}

/// The store as anybody would write it down.
#[derive(Debug, Default, PartialEq)]
struct Model {
    revision: u64,
    keys: BTreeMap<String, Pair>,
    /// The time to live and the deadline.
    sessions: BTreeMap<u64, (u64, u64)>,
    sessions_opened: u64,
    /// The token, and the sessions that claim it, the holder first.
    locks: BTreeMap<String, (u64, Vec<u64>)>,
}

impl Model {
    fn of(state: &State) -> Self {
        let kv = state.kv();
        let locks = kv.locks("", None).map(|(name, lock)| {
            let claims = lock.claims().map(|claim| claim.session.0).collect();
            (name.to_string(), (lock.token.0, claims))
        });
        let sessions = kv.sessions_after(SessionId(0));
        let sessions: BTreeMap<_, _> =
            sessions.map(|(id, session)| (id.0, (session.ttl.0, session.deadline.0))).collect();
        let meta = state.records().next();
        let Some(Record::Meta(meta)) = meta else { panic!("{meta:?}") };
        Self {
            revision: kv.revision().0,
            keys: kv.list("", None).map(|(key, pair)| (key.to_string(), pair.clone())).collect(),
            sessions,
            sessions_opened: meta.next_session.0 - 1,
            locks: locks.collect(),
        }
    }

    /// `None` if it is refused.
    fn apply(&mut self, command: &KvCommand, now: u64) -> Option<KvReply> {
        Some(match command {
            KvCommand::Change(change) => return self.change(change),
            KvCommand::DeletePrefix { prefix, at_most } => {
                let keys = self.keys.keys().filter(|key| key.starts_with(&**prefix));
                let keys: Vec<String> = keys.take(*at_most as usize).cloned().collect();
                let deleted = keys.len() as u32;
                self.revision += u64::from(deleted > 0);
                self.keys.retain(|key, _| !keys.contains(key));
                KvReply::Changed { revision: Revision(self.revision), deleted }
            }
            KvCommand::OpenSession { ttl } => {
                self.sessions_opened += 1;
                self.sessions.insert(self.sessions_opened, (ttl.0, now + ttl.0));
                KvReply::Opened(SessionId(self.sessions_opened))
            }
            KvCommand::RenewSessions(sessions) => {
                let mut over = vec![];
                for id in sessions {
                    match self.sessions.get_mut(&id.0) {
                        Some((ttl, deadline)) => *deadline = now + *ttl,
                        None => over.push(*id),
                    }
                }
                KvReply::Renewed { over }
            }
            KvCommand::CloseSession(id) => {
                self.sessions.remove(&id.0)?;
                self.end(id.0);
                KvReply::Done
            }
            KvCommand::AcquireLock(acquire) => return self.acquire(acquire),
            KvCommand::ReleaseLock { lock, session } => {
                self.locks.get(&**lock)?.1.iter().position(|claim| *claim == session.0)?;
                self.drop_claims(session.0, Some(lock));
                KvReply::Done
            }
        })
    }

    fn change(&mut self, change: &ChangeKeys) -> Option<KvReply> {
        let mut named: Vec<&str> = vec![];
        for change in &change.changes {
            let (KeyChange::Put { key, .. } | KeyChange::Delete { key }) = change;
            named.push(key);
            if let KeyChange::Put { session: Some(id), .. } = change {
                self.sessions.get(&id.0)?;
            }
        }
        named.sort_unstable();
        named.windows(2).all(|pair| pair[0] != pair[1]).then_some(())?;
        let modified = |key: &str| self.keys.get(key).map(|pair| pair.modified);
        let holds = change.conditions.iter().all(|condition| match condition {
            Condition::Absent { key } => modified(key).is_none(),
            Condition::Unchanged { key, since } => modified(key) == Some(*since),
            Condition::Held { lock, token } => {
                self.locks.get(&**lock).is_some_and(|(held, _)| *held == token.0)
            }
        });
        holds.then_some(())?;
        let revision = Revision(self.revision + 1);
        let (mut deleted, mut any) = (0, false);
        for change in &change.changes {
            match change {
                KeyChange::Delete { key } => {
                    deleted += u32::from(self.keys.remove(&**key).is_some());
                }
                KeyChange::Put { key, value, session } => {
                    any = true;
                    let old = self.keys.get(&**key);
                    let pair = Pair {
                        value: value.clone(),
                        session: *session,
                        created: old.map_or(revision, |old| old.created),
                        modified: revision,
                        version: old.map_or(0, |old| old.version) + 1,
                    };
                    self.keys.insert(key.to_string(), pair);
                }
            }
        }
        self.revision += u64::from(any || deleted > 0);
        Some(KvReply::Changed { revision: Revision(self.revision), deleted })
    }

    fn acquire(&mut self, acquire: &AcquireLock) -> Option<KvReply> {
        let session = acquire.session.0;
        self.sessions.get(&session)?;
        let Some((token, claims)) = self.locks.get_mut(&*acquire.lock) else {
            self.revision += 1;
            self.locks.insert(acquire.lock.to_string(), (self.revision, vec![session]));
            return Some(KvReply::Held { token: Revision(self.revision) });
        };
        let place = claims.iter().position(|claim| *claim == session);
        match place {
            Some(0) => Some(KvReply::Held { token: Revision(*token) }),
            Some(place) => Some(KvReply::Waiting { ahead: place as u32 - 1 }),
            None if !acquire.wait => None,
            None => {
                claims.push(session);
                Some(KvReply::Waiting { ahead: claims.len() as u32 - 2 })
            }
        }
    }

    /// Takes away what belongs to a session that is over.
    fn end(&mut self, session: u64) {
        let before = self.keys.len();
        self.keys.retain(|_, pair| pair.session != Some(SessionId(session)));
        let deleted = self.keys.len() < before;
        if !self.drop_claims(session, None) {
            self.revision += u64::from(deleted);
        }
    }

    /// Returns whether a lock passed, and then draws a revision.
    fn drop_claims(&mut self, session: u64, only: Option<&str>) -> bool {
        let mut passed = false;
        for (_, (token, claims)) in
            self.locks.iter_mut().filter(|(name, _)| only.is_none_or(|only| *only == ***name))
        {
            if claims.first() == Some(&session) {
                (*token, passed) = (self.revision + 1, true);
            }
            claims.retain(|claim| *claim != session);
        }
        self.locks.retain(|_, (_, claims)| !claims.is_empty());
        self.revision += u64::from(passed);
        passed
    }

    fn tick(&mut self, now: u64) {
        let due = |(_, (_, deadline)): &(&u64, &(u64, u64))| *deadline <= now;
        let mut over: Vec<(u64, u64)> =
            self.sessions.iter().filter(due).map(|(id, (_, deadline))| (*deadline, *id)).collect();
        over.sort_unstable();
        for (_, id) in over {
            self.sessions.remove(&id);
            self.end(id);
        }
    }
}

#[test]
fn the_store_equals_a_naive_one_after_any_commands() {
    for seed in 0..60 {
        let (mut world, mut random, mut model) = (World::new(), Random(seed), Model::default());
        let mut tokens: BTreeMap<String, u64> = BTreeMap::new();
        for step in 0..250 {
            world.steady += random.below(SECOND / 2);
            let at = format!("seed {seed} step {step}");
            if random.below(8) == 0 {
                model.tick(world.steady);
                world.apply(Command::Tick).expect("time may pass");
            } else {
                let command = random.kv_command();
                let told = ask(&mut world, command.clone()).ok();
                assert_eq!(told, model.apply(&command, world.steady), "{at}: {command:?}");
            }
            assert_eq!(Model::of(&world.state), model, "{at}");
            for (name, (token, _)) in &model.locks {
                let last = tokens.insert(name.clone(), *token);
                assert!(last.is_none_or(|last| last <= *token), "{at}: tokens rise");
            }
        }
    }
}

#[test]
fn whoever_follows_the_events_knows_every_key_and_holder() {
    for seed in 0..40 {
        let (mut world, mut random) = (World::new(), Random(seed));
        let (mut keys, mut holders) = (BTreeMap::new(), BTreeMap::new());
        let mut revision = Revision(0);
        for _ in 0..200 {
            world.steady += random.below(SECOND / 2);
            let commands = match random.below(6) {
                0 => vec![Command::Tick],
                _ => vec![Command::Kv(random.kv_command()), Command::Kv(random.kv_command())],
            };
            for event in world.entry(commands).events {
                let of = match event {
                    Event::Kv(KvEvent::KeyChanged { key, revision, pair }) => {
                        match pair {
                            Some(pair) => keys.insert(key, *pair),
                            None => keys.remove(&key),
                        };
                        revision
                    }
                    Event::Kv(KvEvent::LockPassed { lock, revision, holder, value: _ }) => {
                        match holder {
                            Some(holder) => holders.insert(lock, (holder, revision)),
                            None => holders.remove(&lock),
                        };
                        revision
                    }
                    _ => continue,
                };
                assert!(revision <= of, "revisions do not go back");
                revision = of;
            }
            let kv = world.state.kv();
            assert!(kv.list("", None).eq(&keys));
            let held = kv
                .locks("", None)
                .map(|(name, lock)| (name.clone(), (lock.holder.session, lock.token)));
            assert_eq!(held.collect::<BTreeMap<_, _>>(), holders);
            assert_eq!(kv.revision(), revision);
        }
    }
}
