//! Which files of a folder are audit logs, and in which order they were written.

use std::collections::BTreeMap;

/// What compression adds to a file's name.
pub const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// The files of one log: the API server renames the file that it has filled, and may compress it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The file that is written to, such as `audit.log`; it need not be there.
    pub live: String,
    /// Those that were full, in the order in which they were.
    pub rotated: Vec<String>,
    /// Whether the live file is there.
    pub has_live: bool,
    /// Whether the names of full files tell when they were full, so that each keeps its own.
    pub is_dated: bool,
}

/// Finds the logs among a folder's files. Those whose names have nothing of an audit log's are left out.
pub fn series<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Series> {
    let mut found: BTreeMap<String, Vec<(Age, &str)>> = BTreeMap::new();
    for name in names {
        if let Some((live, age)) = part_of(name) {
            found.entry(live).or_default().push((age, name));
        }
    }
    let in_order = |(live, mut files): (String, Vec<(Age, &str)>)| {
        files.sort();
        // A file that is being compressed has both names until that is done; the plain one, which sorts first, is whole.
        files.dedup_by(|(_, later), (_, name)| uncompressed(later) == *name);
        let has_live = files.iter().any(|(age, _)| *age == Age::Live);
        let rotated = files.iter().filter(|(age, _)| *age != Age::Live).map(|(_, name)| (*name).to_owned()).collect();
        let is_dated = !files.iter().any(|(age, _)| matches!(age, Age::Number(_)));
        Series { live, rotated, has_live, is_dated }
    };
    found.into_iter().map(in_order).collect()
}

/// A file's name without what compression adds to it.
pub fn uncompressed(name: &str) -> &str {
    COMPRESSED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Sorts the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// By logrotate: the higher the number, the older.
    Number(std::cmp::Reverse<u32>),
    /// By the API server, or logrotate with dates: as it stands in the name.
    Date(String),
    Live,
}

/// The live file's name, and the file's age.
fn part_of(name: &str) -> Option<(String, Age)> {
    let plain = uncompressed(name);
    if let Some((live, number)) = plain.rsplit_once('.')
        && let Ok(number) = number.parse()
        && is_log(live)
    {
        return Some((live.to_owned(), Age::Number(std::cmp::Reverse(number))));
    }
    if let Some((live, date)) = plain.rsplit_once('-')
        && is_log(live)
        && date.len() >= 8
        && date.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some((live.to_owned(), Age::Date(date.to_owned())));
    }
    if !is_log(plain) {
        return None;
    }
    let (stem, end) = plain.rsplit_once('.')?;
    if let Some((at, date)) = dated(stem) {
        return Some((format!("{}.{end}", &stem[..at]), Age::Date(date.to_owned())));
    }
    Some((name.to_owned(), Age::Live))
}

/// Where `-2026-01-02T03-04-05.678` begins at the end of a stem, and what it says.
fn dated(stem: &str) -> Option<(usize, &str)> {
    const FORM: &[u8] = b"-dddd-dd-ddTdd-dd-dd.ddd";
    let at = stem.len().checked_sub(FORM.len())?;
    let date = stem.get(at..)?;
    let fits = date.bytes().zip(FORM).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == *form });
    fits.then_some((at, date))
}

fn is_log(name: &str) -> bool {
    [".log", ".json", ".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end) && name.len() > end.len())
}
