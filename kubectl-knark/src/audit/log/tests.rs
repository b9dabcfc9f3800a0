use super::*;

/// Reads until nothing more comes: the text, and what is said of what went wrong.
fn rest(log: &mut Log) -> (String, Vec<String>) {
    let (mut text, mut said, mut piece) = (Vec::new(), Vec::new(), vec![0; PIECE]);
    loop {
        match log.next(&mut piece) {
            Next::Bytes(length) => text.extend_from_slice(&piece[..length]),
            Next::FileEnded(note) => said.extend(note.map(str::to_owned)),
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
    assert!(matches!(log.next(&mut [0; PIECE]), Next::End));
}
