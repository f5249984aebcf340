//! Placeholders in command lines, environments, URLs and bodies.

/// What the placeholders of one attempt stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// `{}` and `{entry}`; `None` if the task has no entry.
    pub(crate) entry: Option<String>,
    /// `{index}`; `None` if the task is not one of an array.
    pub(crate) index: Option<String>,
    pub(crate) job: String,
    pub(crate) task: String,
    pub(crate) attempt: String,
    pub(crate) node: String,
}

impl Values {
    /// Replaces the placeholders that have a value. Everything else in braces stays as it is, and what was put in is not looked at
    /// again.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            filled.push_str(before);
            let value = from
                .find('}')
                .and_then(|close| Some((self.value(from.get(1..close)?)?, from.get(close + 1..)?)));
            match value {
                Some((value, after)) => {
                    filled.push_str(value);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    fn value(&self, name: &str) -> Option<&str> {
        match name {
            "" | "entry" => self.entry.as_deref(),
            "index" => self.index.as_deref(),
            "job" => Some(&self.job),
            "task" => Some(&self.task),
            "attempt" => Some(&self.attempt),
            "node" => Some(&self.node),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            entry: Some("a b{job}".into()),
            index: Some("7".into()),
            job: "17".into(),
            task: "17.3".into(),
            attempt: "2".into(),
            node: "n1".into(),
        }
    }

    #[test]
    fn every_name_is_replaced_once_and_values_are_not_looked_at_again() {
        let filled = values().fill("{} {entry}/{index}-{job}:{task}#{attempt}@{node}");
        assert_eq!(filled, "a b{job} a b{job}/7-17:17.3#2@n1");
    }

    #[test]
    fn everything_else_in_braces_stays_as_it_is() {
        for text in ["{ }", "{Job}", "{x}", "{", "}", "{{", "}{", "${HOME}", "{job", "", "{é}"] {
            assert_eq!(values().fill(text), text);
        }
        assert_eq!(values().fill("{{job}}"), "{17}");
        assert_eq!(values().fill("{x{job}"), "{x17");
    }

    #[test]
    fn a_placeholder_without_a_value_stays_as_it_is() {
        let plain = Values { entry: None, index: None, ..values() };
        assert_eq!(
            plain.fill("find . -exec {} {entry} {index} {job}"),
            "find . -exec {} {entry} {index} 17"
        );
    }
}
