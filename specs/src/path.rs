//! Joining a syscall's path argument to the directory that it is relative to.

/// The absolute, lexically cleaned path of `argument` as seen from `base`.
///
/// `base` is absolute and free of symbolic links (the kernel's own walk). `.`, empty components and `..` are resolved; a `..`
/// that follows a symbolic link inside `argument` is resolved by name, as nothing but the kernel itself could do better.
/// With neither an absolute argument nor a base the result stays relative.
pub fn join(base: &[u8], argument: &[u8]) -> Vec<u8> {
    let absolute = argument.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    let from_base: &[u8] = if absolute { b"" } else { base };
    for part in from_base.split(|b| *b == b'/').chain(argument.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if absolute || base.starts_with(b"/") => {}
            part => parts.push(part),
        }
    }
    let mut path = Vec::with_capacity(base.len() + argument.len() + 2);
    if absolute || base.starts_with(b"/") {
        path.push(b'/');
    }
    path.extend(parts.join(&b'/'));
    path
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn joins() {
        for (base, argument, want) in [
            ("/etc", "passwd", "/etc/passwd"),
            ("/etc", "./a//b/.", "/etc/a/b"),
            ("/etc/ssl", "../passwd", "/etc/passwd"),
            ("/etc", "../../../x", "/x"),
            ("/etc", "/abs/../x", "/x"),
            ("/", "", "/"),
            ("", "a/../../b", "../b"),
            ("", "../x", "../x"),
            ("/a", "b/", "/a/b"),
        ] {
            assert_eq!(String::from_utf8(join(base.as_bytes(), argument.as_bytes())).unwrap(), want, "{base} + {argument}");
        }
    }
}
