//! Pages: limits and cursors. A cursor is opaque, and only fits the list and filter that it came from.

use rota_api::{ErrorCode, PAGE_DEFAULT, PAGE_MAX};

use super::problem::{Answer, refuse};

/// How many items a page may have.
pub(crate) fn limit(asked: Option<u32>) -> Answer<usize> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit as usize),
        other => {
            let detail = format!("limit is {other}; it has to be from 1 to {PAGE_MAX}");
            Err(refuse(ErrorCode::InvalidParameter, detail))
        }
    }
}

/// A list with its filter, as far as cursors have to tell lists apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListId(u64);

impl ListId {
    /// The list `name` under the filters `parts`, which have to be in a fixed order.
    pub(crate) fn new(name: &str, parts: &[Option<&str>]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        for part in parts {
            let (there, text) = part.map_or((0, ""), |text| (1, text));
            hasher.update(&[there]).update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        Self(u64::from_le_bytes(first))
    }

    /// The cursor behind the item with this key.
    pub(crate) fn cursor(self, key: u64) -> String {
        format!("{:016x}{:016x}", key ^ self.0.rotate_left(32), self.0)
    }

    /// The key that a cursor of this list was made of.
    pub(crate) fn key(self, cursor: &str) -> Answer<u64> {
        let number = |text: Option<&str>| {
            text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|text| u64::from_str_radix(text, 16).ok())
        };
        let key = number(cursor.get(..16)).filter(|_| cursor.len() == 32);
        match (key, number(cursor.get(16..))) {
            (Some(key), Some(list)) if list == self.0 => Ok(key ^ self.0.rotate_left(32)),
            _ => Err(refuse(
                ErrorCode::InvalidCursor,
                "the cursor is not one of this list and filter",
            )),
        }
    }

    /// The cursor behind the item with this name.
    pub(crate) fn text_cursor(self, name: &str) -> String {
        let mut cursor = format!("{:016x}", self.0);
        for byte in name.bytes() {
            cursor.push_str(&format!("{byte:02x}"));
        }
        cursor
    }

    /// The name that a cursor of this list was made of.
    pub(crate) fn text(self, cursor: &str) -> Answer<String> {
        let wrong =
            || refuse(ErrorCode::InvalidCursor, "the cursor is not one of this list and filter");
        let digits = cursor.bytes().all(|byte| byte.is_ascii_hexdigit());
        let rest = cursor.strip_prefix(&format!("{:016x}", self.0)).filter(|_| digits);
        let bytes = rest.unwrap_or("x").as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let name = bytes.collect::<Option<Vec<u8>>>().map(String::from_utf8);
        name.and_then(Result::ok).ok_or_else(wrong)
    }

    /// The key of the cursor, if there is one.
    pub(crate) fn begin(self, cursor: Option<&str>) -> Answer<Option<u64>> {
        cursor.map(|cursor| self.key(cursor)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_only_fit_their_own_list_and_filter() {
        let list = ListId::new("jobs", &[Some("a"), None]);
        for key in [0, 1, u64::MAX] {
            assert_eq!(list.key(&list.cursor(key)).ok(), Some(key));
        }
        let cursor = list.cursor(7);
        for other in [&[None, Some("a")][..], &[Some("a"), Some("")], &[Some("b"), None]] {
            assert!(ListId::new("jobs", other).key(&cursor).is_err());
        }
        assert!(ListId::new("tasks", &[Some("a"), None]).key(&cursor).is_err());
        for wrong in
            ["", "x", &cursor[1..], &format!("{cursor}0"), "é234567890123456789012345678901"]
        {
            assert!(list.key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cursors_of_names_only_fit_their_own_list_and_filter() {
        let list = ListId::new("keys", &[Some("a")]);
        for name in ["", "a", "a/ä/名", &"k".repeat(512)] {
            assert_eq!(list.text(&list.text_cursor(name)).ok().as_deref(), Some(name));
        }
        let cursor = list.text_cursor("ab");
        assert!(ListId::new("keys", &[Some("b")]).text(&cursor).is_err());
        for wrong in ["", "x", &cursor[1..], &format!("{cursor}0"), &format!("{cursor}ff"), "é"] {
            assert!(list.text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_have_at_least_one_and_at_most_a_thousand_items() {
        assert!(limit(Some(0)).is_err() && limit(Some(PAGE_MAX + 1)).is_err());
        assert_eq!(limit(Some(1)).ok(), Some(1));
        assert_eq!(limit(Some(PAGE_MAX - 1)).ok(), Some(999));
        assert_eq!(limit(Some(PAGE_MAX)).ok(), Some(1_000));
        assert_eq!(limit(None).ok(), Some(50));
    }
}
