//! The query strings of lists, logs and events.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The size of a page when none is asked for.
pub const PAGE_DEFAULT: u32 = 50;
/// The largest page.
pub const PAGE_MAX: u32 = 1_000;

/// Which jobs to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// States, separated by commas: `queued,running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// A queue's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// A job's whole name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who submitted it, as the header `X-Rota-Submitter` named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitter: Option<String>,
    /// Requirements on labels, separated by commas: `team=render,!test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How many, from 1 to 1000. By default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What to tell of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobShowQuery {
    /// Whether to add what was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<bool>,
}

/// Which tasks of a job to list, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// States, separated by commas: `failed,cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// A group's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many, from 1 to 1000. By default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Where a list of nodes or queues goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many, from 1 to 1000. By default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Standard output or standard error.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which part of an attempt's output to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Which stream. By default standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<Stream>,
    /// Which attempt. By default the last one.
    #[serde(default, deserialize_with = "positive_32", skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub attempt: Option<u32>,
    /// The first byte. By default 0.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Begin this many bytes before the end instead.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Whether to go on until the attempt is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Which events to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Kinds, separated by commas: `job`, `task`, `node`, `queue`, `server`, `token`, `audit`. By default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
    /// Only about this job.
    #[serde(default, deserialize_with = "signed_64", skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// After this event, as `index:seq` or `index`. The header `Last-Event-ID` does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Numbers are told as `int32` and `int64`, which every language has; so larger ones are refused.
pub(crate) fn signed_32<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(Option::deserialize(from)?, 0..=i32::MAX.unsigned_abs())
}

/// As [`signed_32`].
pub(crate) fn signed_64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(Option::deserialize(from)?, 0..=i64::MAX.unsigned_abs())
}

/// As [`signed_32`], from 1.
pub(crate) fn positive_32<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(Option::deserialize(from)?, 1..=i32::MAX.unsigned_abs())
}

fn bounded<T, E>(value: Option<T>, range: RangeInclusive<T>) -> Result<Option<T>, E>
where
    T: PartialOrd + Display,
    E: Error,
{
    match value {
        Some(value) if !range.contains(&value) => {
            let (from, to) = (range.start(), range.end());
            Err(E::custom(format!("{value} is not from {from} to {to}")))
        }
        fine => Ok(fine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_up_to_what_the_schema_says() {
        let read = |tail: u64, attempt: u32| {
            let value = serde_json::json!({"tail": tail, "attempt": attempt});
            serde_json::from_value::<LogQuery>(value).is_ok()
        };
        let (long, short) = (i64::MAX.unsigned_abs(), i32::MAX.unsigned_abs());
        assert!(read(long - 1, short - 1) && read(long, short));
        assert!(!read(long + 1, short) && !read(long, short + 1));
        assert!(read(0, 1) && read(1, 2) && !read(0, 0));
        assert_eq!(serde_json::from_str::<LogQuery>("{}").unwrap(), LogQuery::default());
    }
}
