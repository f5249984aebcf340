//! How keys, sessions and locks look to people.

use std::fmt::Write;

use rota_api::{Change, Key, Lock, LockClaim, Session};

use crate::output::{Column, Show};
use crate::screen::{Screen, bytes, clean, several, short_span};

/// Characters of a value that a list shows.
const PREVIEW_MAX: usize = 60;

fn column<T>(title: &'static str, cell: fn(&T, &Screen) -> String) -> Column<T> {
    Column { title, wide: false, cell }
}

fn wide<T>(title: &'static str, cell: fn(&T, &Screen) -> String) -> Column<T> {
    Column { title, wide: true, cell }
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

impl Show for Key {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("KEY", |key, _| clean(&key.key)),
            column("SIZE", |key, _| bytes(key.size)),
            column("REVISION", |key, _| key.revision.to_string()),
            wide("CREATED", |key, _| key.created.to_string()),
            column("VERSION", |key, _| key.version.to_string()),
            column("SESSION", |key, _| or_dash(key.session)),
            wide("VALUE", |key, _| preview(key)),
        ]
    }

    fn id(&self) -> String {
        self.key.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = screen.strong(&format!("key {}", clean(&self.key)));
        let session = self.session.map_or(String::new(), |id| format!(" · goes with session {id}"));
        format!("{head} · {} · revision {}{session}", bytes(self.size), self.revision)
    }
}

impl Show for Session {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("SESSION", |session, _| session.id.to_string()),
            column("TTL", |session, _| session.ttl.to_string()),
            column("ENDS IN", |session, _| short_span(session.expires_in.0.0)),
            column("KEYS", |session, _| session.keys.to_string()),
            column("LOCKS", |session, _| session.locks.to_string()),
            column("OPENED", |session, screen| screen.when(session.opened_at)),
        ]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = screen.strong(&format!("session {}", self.id));
        format!(
            "{head} · ends in {} unless it is renewed (every {}) · {}, {} · opened {}",
            short_span(self.expires_in.0.0),
            self.ttl,
            several(self.keys, "key"),
            several(self.locks, "lock"),
            screen.when(self.opened_at)
        )
    }
}

impl Show for Lock {
    fn columns() -> Vec<Column<Self>> {
        vec![
            column("LOCK", |lock, _| clean(&lock.lock)),
            column("SESSION", |lock, _| lock.holder.session.to_string()),
            column("TOKEN", |lock, _| lock.token.to_string()),
            column("WAITING", |lock, _| lock.waiting.to_string()),
            column("HOLDER", |lock, _| match lock.holder.value.as_str() {
                "" => "-".to_owned(),
                value => cut(value),
            }),
        ]
    }

    fn id(&self) -> String {
        self.lock.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = screen.strong(&format!("lock {}", clean(&self.lock)));
        let holder = claim(&self.holder);
        let mut text = format!("{head} · held by {holder} under token {}", self.token);
        for (place, waiter) in self.waiters.iter().enumerate() {
            write!(text, "\n  {}. {}", place + 1, claim(waiter)).ok();
        }
        text
    }
}

fn claim(claim: &LockClaim) -> String {
    let session = format!("session {}", claim.session);
    if claim.value.is_empty() { session } else { format!("{session} ({})", cut(&claim.value)) }
}

/// A change in one line.
pub(crate) fn change(change: &Change, screen: &Screen) -> String {
    let name = change.key.as_deref().or(change.lock.as_deref()).unwrap_or_default();
    let mut parts = vec![
        format!("{:>8}", format!("{}:{}", change.index, change.seq)),
        format!("{:<6}", change.kind.name()),
        clean(name),
    ];
    parts.extend(change.now.as_ref().map(|key| screen.faint(&preview(key))));
    parts.extend(
        change
            .holder
            .as_ref()
            .map(|holder| format!("{}, token {}", claim(holder), change.revision)),
    );
    parts.join("  ")
}

/// The beginning of a value, if it is text.
fn preview(key: &Key) -> String {
    let Some(value) = &key.value else { return String::new() };
    match std::str::from_utf8(&value.0) {
        Ok(text) => cut(text),
        Err(_) => format!("({} that are no text)", several(key.size, "byte")),
    }
}

/// The beginning of a text, in one line.
fn cut(text: &str) -> String {
    let more = text.chars().nth(PREVIEW_MAX).is_some();
    let text: String = text.chars().take(PREVIEW_MAX).collect();
    format!("{}{}", clean(&text), if more { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_api::Base64;

    #[test]
    fn values_are_shown_cut_and_without_what_could_deceive() {
        let shown = |value: &[u8]| {
            let (value, size) = (Some(Base64(value.to_vec())), value.len() as u64);
            preview(&Key { value, size, ..Key::default() })
        };
        assert_eq!(shown(b"a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(shown(b"\xff\xfe"), "(2 bytes that are no text)");
        let long = "x".repeat(PREVIEW_MAX);
        assert_eq!(shown(long.as_bytes()), long);
        assert_eq!(shown(format!("{long}y").as_bytes()), format!("{long}…"));
    }
}
