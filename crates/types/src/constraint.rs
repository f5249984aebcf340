//! Labels of nodes, and what tasks demand of them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

/// Key-value pairs on a node or a job.
pub type Labels = BTreeMap<Box<str>, Box<str>>;

/// A demand on one label of a node. A node that does not meet it is never chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    /// The label's key.
    pub key: Box<str>,
    /// What must hold of its value.
    pub predicate: Predicate,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Predicate {
    /// The label is there and has one of these values.
    In(Vec<Box<str>>),
    /// The label is absent or has none of these values.
    NotIn(Vec<Box<str>>),
    /// The label is there.
    Exists,
    /// The label is absent.
    Absent,
}

/// A constraint that a node does not meet, with the value found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unmet {
    /// What was demanded.
    pub constraint: Constraint,
    /// The node's value of that label, if it has one.
    pub found: Option<Box<str>>,
}

impl Constraint {
    /// Whether `labels` meet this constraint.
    #[must_use]
    pub fn admits(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.predicate {
            Predicate::In(values) => value.is_some_and(|value| values.contains(value)),
            Predicate::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Predicate::Exists => value.is_some(),
            Predicate::Absent => value.is_none(),
        }
    }
}

impl fmt::Display for Constraint {
    /// Prints the form that job files and the command line use: `zone=a|b`, `zone!=a`, `ssd`, `!ssd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, sign: &str, values: &[Box<str>]| {
            write!(f, "{}{sign}{}", self.key, values.join("|"))
        };
        match &self.predicate {
            Predicate::In(values) => list(f, "=", values),
            Predicate::NotIn(values) => list(f, "!=", values),
            Predicate::Exists => f.write_str(&self.key),
            Predicate::Absent => write!(f, "!{}", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use std::string::ToString;

    #[test]
    fn each_predicate_admits_what_it_says() {
        let labels: Labels = [("zone".into(), "a".into())].into();
        let admits = |key: &str, predicate: Predicate| {
            Constraint { key: key.into(), predicate }.admits(&labels)
        };
        assert!(admits("zone", Predicate::In(vec!["b".into(), "a".into()])));
        assert!(!admits("zone", Predicate::In(vec!["b".into()])));
        assert!(!admits("rack", Predicate::In(vec!["b".into()])));
        assert!(!admits("zone", Predicate::NotIn(vec!["a".into()])));
        assert!(admits("rack", Predicate::NotIn(vec!["a".into()])));
        assert!(admits("zone", Predicate::Exists) && !admits("rack", Predicate::Exists));
        assert!(!admits("zone", Predicate::Absent) && admits("rack", Predicate::Absent));
    }

    #[test]
    fn constraints_print_as_they_are_written() {
        let print = |predicate| Constraint { key: "zone".into(), predicate }.to_string();
        assert_eq!(print(Predicate::In(vec!["a".into(), "b".into()])), "zone=a|b");
        assert_eq!(print(Predicate::NotIn(vec!["a".into()])), "zone!=a");
        assert_eq!(print(Predicate::Exists), "zone");
        assert_eq!(print(Predicate::Absent), "!zone");
    }
}
