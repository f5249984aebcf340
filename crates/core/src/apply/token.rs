//! Tokens are added, used and revoked; requests are noted for the audit.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rota_types::limits::{
    JOIN_USES_MAX, JOIN_VALIDITY_MAX, LOGINS_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, TOKENS_MAX,
};

use crate::apply::Applied;
use crate::apply::submit::{check_name, limit};
use crate::command::{Outcome, Rejection, Reply};
use crate::event::Event;
use crate::state::State;
use crate::token::{Grant, Note, Noted, Token, TokenCommand, TokenSpec};

impl State {
    pub(super) fn change_tokens(
        &mut self,
        command: &TokenCommand,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match command {
            TokenCommand::Add(spec) => self.add_token(spec, events),
            TokenCommand::Revoke(id) => self.revoke_token(id, events),
            TokenCommand::Use(id) => self.use_token(id, events),
        }
    }

    /// Repeating it is safe: the same token is added once.
    fn add_token(&mut self, spec: &TokenSpec, events: &mut Vec<Event>) -> Outcome {
        self.check_token(spec)?;
        if let Some(token) = self.tokens.get(&spec.id) {
            let same = token.spec.hash == spec.hash;
            return if same {
                Ok(Reply::Done)
            } else {
                Err(Rejection::TokenExists(spec.id.clone()))
            };
        }
        self.forget_expired(events);
        if let Some(holder) = &spec.session_of {
            self.check_session(spec, holder)?;
            self.make_room_for_session(holder, events);
        }
        limit("tokens", (self.tokens.len() as u64).saturating_add(1), TOKENS_MAX as u64)?;
        let token = Token { spec: spec.clone(), created_at: self.now };
        self.tokens.insert(spec.id.clone(), token);
        events.push(Event::TokenAdded(spec.id.clone()));
        Ok(Reply::Done)
    }

    fn revoke_token(&mut self, id: &str, events: &mut Vec<Event>) -> Outcome {
        self.tokens.remove(id).ok_or_else(|| Rejection::UnknownToken(id.into()))?;
        events.push(Event::TokenRevoked(id.into()));
        self.end_tokens(events, |session| session.session_of.as_deref() == Some(id));
        Ok(Reply::Done)
    }

    fn end_tokens(&mut self, events: &mut Vec<Event>, ends: impl Fn(&TokenSpec) -> bool) {
        self.tokens.retain(|id, token| {
            let ends = ends(&token.spec);
            if ends {
                events.push(Event::TokenRevoked(id.clone()));
            }
            !ends
        });
    }

    /// A session may do what its token may, and for no longer.
    fn check_session(&self, spec: &TokenSpec, holder: &str) -> Result<(), Rejection> {
        let invalid = |why| Err(Rejection::Invalid { what: "token.session_of", why });
        let Some(token) = self.tokens.get(holder) else {
            return Err(Rejection::UnknownToken(holder.into()));
        };
        let Token { spec: TokenSpec { grant, expires_at, session_of, .. }, .. } = token;
        if session_of.is_some() || !matches!(grant, Grant::Api(_)) {
            return invalid("only the holder of a token of the API can log in");
        }
        if spec.grant != *grant {
            return invalid("a session may do what its token may");
        }
        match (spec.expires_at, expires_at) {
            (None, _) => invalid("a session has to end"),
            (Some(end), Some(last)) if end > *last => {
                invalid("a session ends with its token at the latest")
            }
            (Some(_), _) => Ok(()),
        }
    }

    fn make_room_for_session(&mut self, holder: &str, events: &mut Vec<Event>) {
        let sessions =
            self.tokens.values().filter(|token| token.spec.session_of.as_deref() == Some(holder));
        if sessions.clone().count() >= LOGINS_MAX
            && let Some(first) = sessions.min_by_key(|token| token.spec.expires_at)
        {
            let first = first.spec.id.clone();
            self.end_tokens(events, |session| session.id == first);
        }
    }

    /// Takes one use of a join token.
    fn use_token(&mut self, id: &str, events: &mut Vec<Event>) -> Outcome {
        let now = self.now;
        let unknown = || Rejection::UnknownToken(id.into());
        let token = self.tokens.get_mut(id).filter(|token| !token.is_expired(now));
        let token = token.ok_or_else(unknown)?;
        let Grant::Join { uses_left, .. } = &mut token.spec.grant else {
            return Err(unknown());
        };
        *uses_left = uses_left.saturating_sub(1);
        if *uses_left == 0 {
            self.tokens.remove(id);
            events.push(Event::TokenRevoked(id.into()));
        }
        Ok(Reply::Done)
    }

    fn check_token(&self, spec: &TokenSpec) -> Result<(), Rejection> {
        check_name("token.id", &spec.id)?;
        check_name("token.name", &spec.name)?;
        limit("token.created_by bytes", spec.created_by.len() as u64, NAME_BYTES_MAX as u64)?;
        if spec.expires_at.is_some_and(|end| end <= self.now) {
            return Err(Rejection::Invalid { what: "token.expires_at", why: "has passed already" });
        }
        let Grant::Join { uses_left, .. } = spec.grant else { return Ok(()) };
        if uses_left == 0 {
            return Err(Rejection::Invalid { what: "token.uses", why: "must be at least 1" });
        }
        limit("token.uses", u64::from(uses_left), u64::from(JOIN_USES_MAX))?;
        let Some(end) = spec.expires_at else {
            return Err(Rejection::Invalid {
                what: "token.expires_at",
                why: "a join token has to end",
            });
        };
        let valid_for = end.since(self.now).micros();
        limit("validity of a join token in microseconds", valid_for, JOIN_VALIDITY_MAX.micros())
    }

    /// Those that have ended are of no use to anybody; they go when room is needed.
    fn forget_expired(&mut self, events: &mut Vec<Event>) {
        let now = self.now;
        self.end_tokens(events, |spec| spec.expires_at.is_some_and(|end| end <= now));
    }
}

impl Applied {
    /// Notes who asked for the commands before this one, and how many of them were refused.
    pub(super) fn note(&mut self, note: &Note) {
        let outcome = check_note(note);
        if outcome.is_ok() {
            let belong = usize::try_from(note.commands).unwrap_or(usize::MAX);
            let refused =
                self.outcomes.iter().rev().take(belong).filter(|outcome| outcome.is_err());
            let refused = u32::try_from(refused.count()).unwrap_or(u32::MAX);
            self.events.push(Event::Noted(Box::new(Noted { note: note.clone(), refused })));
        }
        self.outcomes.push(outcome.map(|()| Reply::Done));
    }
}

fn check_note(note: &Note) -> Result<(), Rejection> {
    let Note { who, source, action, commands: _ } = note;
    let bytes = who.len().saturating_add(source.len()).saturating_add(action.len());
    limit("note bytes", bytes as u64, NOTE_BYTES_MAX as u64)
}
