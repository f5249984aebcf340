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
    /// Replaces the placeholders that have a value. `{{name}}` stands for `{name}` itself, and what follows a `$` is a variable of
    /// some script. Everything else in braces stays as it is, and what was put in is not looked at again.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            filled.push_str(before);
            let (piece, length) = if before.ends_with('$') {
                let braces = from.bytes().take_while(|byte| *byte == b'{').count();
                (from.get(..braces), braces)
            } else if let Some(literal) = literal(from) {
                (Some(literal), literal.len() + 2)
            } else if let Some((value, length)) = self.value_at(from) {
                (Some(value), length)
            } else {
                (from.get(..1), 1)
            };
            filled.push_str(piece.unwrap_or_default());
            rest = from.get(length..).unwrap_or_default();
        }
        filled.push_str(rest);
        filled
    }

    /// What the placeholder stands for with which `text` begins, and how long that placeholder is.
    fn value_at(&self, text: &str) -> Option<(&str, usize)> {
        let close = text.find('}')?;
        Some((self.value(text.get(1..close)?)?, close + 1))
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

/// What can stand in braces.
const NAMES: [&str; 7] = ["", "entry", "index", "job", "task", "attempt", "node"];

/// The placeholder in single braces, if `text` begins with one in double braces.
fn literal(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?;
    let (name, after) = inner.strip_prefix('{')?.split_once('}')?;
    (NAMES.contains(&name) && after.starts_with('}')).then(|| inner.get(..name.len() + 2))?
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
        assert_eq!(values().fill("{x{job}"), "{x17");
    }

    #[test]
    fn a_variable_of_a_script_is_no_placeholder() {
        for text in
            ["${task}", "x=${job:-1}; echo ${job}${index}", "${}", "${{ node }}", "${{node}}"]
        {
            assert_eq!(values().fill(text), text);
        }
        assert_eq!(values().fill("$ {job} $$job {index}$"), "$ 17 $$job 7$");
        let dollar = Values { entry: Some("$".into()), ..values() };
        assert_eq!(dollar.fill("{}{job}"), "$17", "only what was written counts");
    }

    #[test]
    fn double_braces_stand_for_a_placeholder_itself() {
        assert_eq!(values().fill("{{job}} {{}} {{entry}}{job}"), "{job} {} {entry}17");
        let plain = Values { entry: None, index: None, ..values() };
        assert_eq!(plain.fill("{{}} {{index}}"), "{} {index}", "also without a value");
        for text in ["{{x}}", "{{ job }}", "{{.Name}}", "{{job} }", "{{"] {
            assert_eq!(plain.fill(&text.replace("job}", "jobs}")), text.replace("job}", "jobs}"));
        }
        assert_eq!(values().fill(r#"{"a":{"b":{{}}}}"#), r#"{"a":{"b":{}}}"#);
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
