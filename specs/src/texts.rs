//! Texts of bytes that a process chose, and lists of them in one piece of memory: a hundred thousand short arguments stay small.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The list. In JSON it is an array of strings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    joined: String,
    /// Where each text ends in `joined`.
    ends: Vec<u32>,
}

impl Texts {
    /// The texts in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator + Clone {
        (0..self.ends.len()).map(|at| self.get(at).unwrap_or_default())
    }

    /// The text at a place, counted from 0.
    pub fn get(&self, at: usize) -> Option<&str> {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(0));
        self.joined.get(begin as usize..*self.ends.get(at)? as usize)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.joined.len() + size_of_val(self.ends.as_slice())
    }
}

/// About how much memory the entries of a map take, in bytes.
pub fn map_bytes(map: &std::collections::BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| 2 * size_of::<String>() + key.len() + value.len()).sum()
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    /// What goes beyond 4 GiB is left out.
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            let Ok(end) = u32::try_from(all.joined.len() + text.as_ref().len()) else { break };
            all.joined.push_str(text.as_ref());
            all.ends.push(end);
        }
        all.joined.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(deserializer).map(Self::from_iter)
    }
}

impl schemars::JsonSchema for Texts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Vec::<String>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<String>::json_schema(generator)
    }
}

/// Text for a field, and the Base64 for its neighbour where the bytes aren't UTF-8.
pub fn text(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

/// Texts for a list field, and the Base64 of all for its neighbour where one isn't UTF-8.
pub fn list<'b>(list: impl Iterator<Item = &'b [u8]> + Clone) -> (Texts, Option<Texts>) {
    let exact = list.clone().all(|bytes| std::str::from_utf8(bytes).is_ok());
    let b64 = (!exact).then(|| list.clone().map(|bytes| BASE64.encode(bytes)).collect());
    (list.map(String::from_utf8_lossy).collect(), b64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        let list = ["sh", "", "-c", "\0ü"];
        let texts: Texts = list.into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), list);
        assert_eq!((texts.len(), texts.get(3), texts.get(4)), (4, Some("\0ü"), None));
        let json = serde_json::to_string(&texts).unwrap();
        assert_eq!(json, r#"["sh","","-c","\u0000ü"]"#);
        assert_eq!(serde_json::from_str::<Texts>(&json).unwrap(), texts);
    }
}
