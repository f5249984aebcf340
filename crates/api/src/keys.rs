//! Keys, sessions and locks.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::query::signed_64;
use crate::scalar::{Base64, Duration, Moment};

/// A key of the key-value store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its name.
    #[schema(example = "config/web/port")]
    pub key: String,
    /// The revision of its last change.
    pub revision: u64,
    /// The revision at which it came to be.
    pub created: u64,
    /// How often it was given a value since it came to be.
    pub version: u64,
    /// The bytes of its value.
    pub size: u64,
    /// The session that it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Its value; left out where only keys were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
}

/// Which keys to list, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeyQuery {
    /// What the keys begin with. By default every key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whether to leave the values out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_only: Option<bool>,
    /// How many, from 1 to 1000. By default 50. A page whose values have more than 4 MiB together ends earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What a change of one key depends on, and what it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutQuery {
    /// The session that the key goes with from now on. By default none: the key stays.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Only if this lock is held under `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The fencing token of `lock`.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// What the deletion of one key depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Only if this lock is held under `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The fencing token of `lock`.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// Which keys to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PrefixQuery {
    /// What the keys begin with; empty for every key.
    pub prefix: String,
    /// How many, the first in order: from 1 to 10000. By default 10000; `deleted` tells whether there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 10000)]
    pub at_most: Option<u32>,
}

/// Keys were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysChanged {
    /// The store's revision afterwards: that of the change, if there was any.
    pub revision: u64,
    /// How many keys were deleted.
    pub deleted: u32,
    /// The log entry that did it.
    pub index: u64,
}

/// Changes to keys that are made together, at one revision, if every condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// What must hold before anything changes: at most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 128)]
    pub conditions: Vec<KeyCondition>,
    /// What to change, each key once: 1 to 128.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 128)]
    pub changes: Vec<KeyChange>,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyCondition {
    /// There is no such key.
    Absent {
        /// The key.
        key: String,
    },
    /// The key is there and was changed last at this revision.
    Unchanged {
        /// The key.
        key: String,
        /// The revision of its last change.
        revision: u64,
    },
    /// The lock is held under this fencing token.
    Held {
        /// The lock's name.
        lock: String,
        /// The fencing token.
        token: u64,
    },
}

/// A change to one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyChange {
    /// Gives it a value.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Base64,
        /// The session that it goes with from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<u64>,
    },
    /// Deletes it. Where there is no key, nothing changes.
    Delete {
        /// The key.
        key: String,
    },
}

/// A session that is to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// How long it lives without being renewed: from `1s` to `24h`. By default `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// A client that has to show that it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: u64,
    /// How long it lives without being renewed.
    pub ttl: Duration,
    /// How long it lives yet unless it is renewed.
    pub expires_in: Duration,
    /// When it was opened.
    pub opened_at: Moment,
    /// How many keys go with it.
    pub keys: u64,
    /// How many locks it holds or waits for.
    pub locks: u64,
    /// The last log entry that the answer has seen.
    pub index: u64,
}

/// A claim to a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockClaim {
    /// The session that claims it.
    pub session: u64,
    /// What the claimant wants others to know.
    pub value: String,
}

/// A lock that somebody holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lock {
    /// Its name.
    #[schema(example = "nightly-report")]
    pub lock: String,
    /// The fencing token of the holder: it rises with each holder.
    pub token: u64,
    /// Who holds it.
    pub holder: LockClaim,
    /// How many wait for it.
    pub waiting: u64,
    /// Who waits for it, in order; left out of lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiters: Vec<LockClaim>,
    /// The last log entry that the answer has seen.
    pub index: u64,
}

/// Which locks to list, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LockQuery {
    /// What the names begin with. By default every lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How many, from 1 to 1000. By default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A claim to a lock that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquireRequest {
    /// The session that claims it.
    pub session: u64,
    /// What others see of the claim, such as an address: at most 4096 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// How long to wait for an answer while another session holds the lock: up to `1m`. Without it, such a claim is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
}

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acquired {
    /// The lock's name.
    pub lock: String,
    /// The session that claims it.
    pub session: u64,
    /// Whether the session holds the lock; else the claim waits.
    pub held: bool,
    /// The fencing token, if the session holds the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// How many wait before it, if the claim waits; the holder is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// The last log entry that the answer has seen.
    pub index: u64,
}

/// Whose claim to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReleaseQuery {
    /// The session whose claim it is.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    #[param(required = true)]
    pub session: Option<u64>,
}

/// What to watch: exactly one of the first four.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// One key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Keys that begin like this; empty for every key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// One lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Locks whose names begin like this; empty for every lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_prefix: Option<String>,
    /// After this change, as `index:seq`, or after this log entry, as `index`. The header `Last-Event-ID` does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What happened to a key or a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A key was given a value.
    #[default]
    Put,
    /// A key was deleted, or has gone with its session.
    Delete,
    /// A lock has a new holder.
    Held,
    /// A lock is held by nobody.
    Free,
}

impl ChangeKind {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Held => "held",
            Self::Free => "free",
        }
    }
}

/// A change of a key or a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The log entry that did it.
    pub index: u64,
    /// Its place among the changes of that entry.
    pub seq: u32,
    /// When.
    pub at: Moment,
    /// What happened.
    pub kind: ChangeKind,
    /// The revision of the change; of a lock, the new holder's fencing token.
    pub revision: u64,
    /// The key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the key holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Key>,
    /// The lock's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Who holds the lock now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<LockClaim>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_base64_in_both_directions_and_nothing_else_is_taken() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = Base64(bytes.clone()).to_string();
        assert_eq!(text.parse(), Ok(Base64(bytes)));
        assert_eq!("".parse(), Ok(Base64(Vec::new())));
        for wrong in ["a", "YQ", "YQ=", "YR==", "Y Q=", "Y\nQ==", "_w=="] {
            assert!(wrong.parse::<Base64>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn transactions_read_as_they_are_documented() {
        let text = r#"{"conditions":[{"absent":{"key":"a"}},{"unchanged":{"key":"b","revision":3}},{"held":{"lock":"l","token":9}}],"changes":[{"put":{"key":"a","value":"YQ=="}},{"delete":{"key":"b"}}]}"#;
        let read: ChangeRequest = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        for wrong in [
            r#"{"changes":[{"put":{"key":"a","value":"YQ==","ttl":"1s"}}]}"#,
            r#"{"changes":[{"put":{"key":"a"}}]}"#,
            r#"{"changes":[{"drop":{"key":"a"}}]}"#,
        ] {
            assert!(serde_json::from_str::<ChangeRequest>(wrong).is_err(), "{wrong}");
        }
    }
}
