//! Tokens are added, used and revoked; requests are noted for the audit.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rota_types::limits::{
    JOIN_USES_MAX, JOIN_VALIDITY_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, TOKENS_MAX,
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
        limit("tokens", (self.tokens.len() as u64).saturating_add(1), TOKENS_MAX as u64)?;
        let token = Token { spec: spec.clone(), created_at: self.now };
        self.tokens.insert(spec.id.clone(), token);
        events.push(Event::TokenAdded(spec.id.clone()));
        Ok(Reply::Done)
    }

    fn revoke_token(&mut self, id: &str, events: &mut Vec<Event>) -> Outcome {
        self.tokens.remove(id).ok_or_else(|| Rejection::UnknownToken(id.into()))?;
        events.push(Event::TokenRevoked(id.into()));
        Ok(Reply::Done)
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
        self.tokens.retain(|id, token| {
            let expired = token.is_expired(now);
            if expired {
                events.push(Event::TokenRevoked(id.clone()));
            }
            !expired
        });
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
