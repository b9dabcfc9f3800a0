use std::{fs, path::Path};

use super::*;
use crate::{From, Log, PIECE};

/// Reads until nothing more comes: the text, and what is said of what went wrong.
fn rest(log: &mut Log) -> (String, Vec<String>) {
    let (mut text, mut said, mut piece) = (Vec::new(), Vec::new(), vec![0; PIECE]);
    loop {
        match log.next(&mut piece) {
            Next::Bytes(length) => text.extend_from_slice(&piece[..length]),
            Next::FileEnded(note) => said.extend(note.map(String::from)),
            Next::Broken(why) => said.push(why.to_string()),
            Next::Nothing | Next::End => return (String::from_utf8(text).unwrap(), said),
        }
    }
}

#[test]
fn a_followed_file_that_can_not_be_read_on_is_given_up() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a disk's fault"))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    fs::write(&path, "text").unwrap();
    let mut log = Log::find(&path, true).unwrap().remove(0);
    let From::Files(files) = &mut log.from else { panic!("it is a file") };
    assert!(matches!(files.open_next(), Next::Bytes(0)));
    files.open.as_mut().unwrap().from = Box::new(Fails);
    assert_eq!(rest(&mut log), (String::new(), vec!["a disk's fault".to_owned()]));
    assert!(matches!(log.next(&mut [0]), Next::End));
}

fn gzip(path: &Path) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut encoder, &fs::read(path).unwrap()).unwrap();
    fs::write(path.with_added_extension("gz"), encoder.finish().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
}

/// A log of that folder, of which the first file is open.
fn begun(folder: &Path, follow: bool) -> Log {
    let mut log = Log::find(folder, follow).unwrap().remove(0);
    assert!(matches!(log.next(&mut [0]), Next::Bytes(0)));
    log
}

#[test]
fn what_is_rotated_while_older_files_are_read_is_read_once() {
    for follow in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("audit.log");
        let full = |second: u32| folder.path().join(format!("audit-2026-01-02T03-04-{second:02}.000.log"));
        fs::write(full(1), "1 ").unwrap();
        fs::write(full(2), "2 ").unwrap();
        fs::write(&live, "3 ").unwrap();
        let mut log = begun(folder.path(), follow);
        gzip(&full(2));
        fs::rename(&live, full(3)).unwrap();
        fs::write(full(4), "4 ").unwrap();
        fs::write(&live, "5 ").unwrap();
        let want = if follow { "1 2 3 4 5 " } else { "1 2 3 " };
        assert_eq!(rest(&mut log), (want.to_owned(), vec![]));
        if follow {
            // Full and compressed before anybody looks, and its successor as well.
            fs::rename(&live, full(5)).unwrap();
            gzip(&full(5));
            fs::write(full(6), "6 ").unwrap();
            gzip(&full(6));
            fs::write(&live, "7 ").unwrap();
            assert_eq!(rest(&mut log), ("6 7 ".to_owned(), vec![]));
            assert_eq!(rest(&mut log), (String::new(), vec![]));
        }
    }
}

#[test]
fn numbers_that_change_while_files_are_read_lead_to_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("audit.log");
    let full = |number: u32| folder.path().join(format!("audit.log.{number}"));
    let rotate = |next: &str| {
        for number in (1..9).rev().filter(|number| full(*number).exists()) {
            fs::rename(full(number), full(number + 1)).unwrap();
        }
        fs::rename(&live, full(1)).unwrap();
        fs::write(&live, next).unwrap();
    };
    fs::write(full(2), "1 ").unwrap();
    fs::write(full(1), "2 ").unwrap();
    fs::write(&live, "3 ").unwrap();
    let mut log = begun(folder.path(), true);
    rotate("4 ");
    assert_eq!(rest(&mut log), ("1 2 3 4 ".to_owned(), vec![]));
    rotate("5 ");
    rotate("6 ");
    assert_eq!(rest(&mut log), ("5 6 ".to_owned(), vec![]));
    rotate("7 ");
    gzip(&full(1));
    assert_eq!(rest(&mut log), ("7 ".to_owned(), vec![]));
    // Nothing is left of what was known.
    for number in 1..9 {
        let _ = fs::rename(full(number), folder.path().join(format!("gone {number}")));
    }
    fs::rename(full(1).with_added_extension("gz"), folder.path().join("gone")).unwrap();
    rotate("8 ");
    gzip(&full(1));
    let (text, said) = rest(&mut log);
    assert_eq!((text.as_str(), said.len()), ("8 ", 1), "{said:?}");
    assert!(said[0].contains("requests may be missed"), "{said:?}");
}
