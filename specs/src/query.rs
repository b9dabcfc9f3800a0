//! Queries of requests, as the API server reads them.

/// The parameters of a query, in their order. As Go's `net/url` does, whoever holds a `;`, or a `%` that two hexadecimal digits
/// don't follow, is left out; the others count.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let valid = query.split('&').filter(|pair| !pair.contains(';') && is_escaped(pair));
    valid.flat_map(|pair| form_urlencoded::parse(pair.as_bytes()).into_owned())
}

fn is_escaped(pair: &str) -> bool {
    pair.split('%').skip(1).all(|after| after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_does_not_take_is_left_out() {
        for (query, want) in [
            ("", &[][..]),
            ("a=b%20c+d&a=&a&=e", &[("a", "b c d"), ("a", ""), ("a", ""), ("", "e")]),
            ("command=sh&command=a;b&command=%3B", &[("command", "sh"), ("command", ";")]),
            ("dry;Run=All&&%64ryRun=All", &[("dryRun", "All")]),
            ("a=%&b=%4&c=%zz&d=%%41&%e=f&g=%41%", &[]),
            ("a=b=c%3d&d=%ff", &[("a", "b=c="), ("d", "\u{fffd}")]),
        ] {
            let found: Vec<_> = pairs(query).collect();
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, want, "{query}");
        }
    }
}
