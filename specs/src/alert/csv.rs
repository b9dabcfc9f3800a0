//! Alerts as lines of comma-separated values (RFC 4180).

use super::{Notice, subject};

/// The first line of a file.
pub const HEADER: &str = "time,severity,policy,rule,message,count,first_time,node,namespace,pod,container,container_id,pid,ppid,uid,gid,\
                          comm,exe,cwd,user,object,tags\r\n";

/// Adds an alert's line.
pub fn line(notice: &Notice, out: &mut String) {
    let (event, rule, process) = (&notice.event, notice.rule(), &notice.event.process);
    let container = event.container.as_ref();
    let numbers = [process.pid, process.ppid, process.uid, process.gid].map(|number| number.to_string());
    let (count, user, object, tags) =
        (notice.alert.count.to_string(), subject::user(event), subject::object(event), rule.tags.join(" "));
    let [pid, ppid, uid, gid] = &numbers;
    let fields: [&str; 22] = [
        &event.time,
        rule.severity.name(),
        &rule.policy,
        &rule.rule,
        &rule.message,
        &count,
        &notice.alert.first_time,
        &event.node.name,
        subject::namespace(event),
        subject::pod(event),
        container.map_or("", |container| &container.name),
        container.map_or("", |container| &container.id),
        pid,
        ppid,
        uid,
        gid,
        &process.comm,
        &process.exe,
        &process.cwd,
        &user,
        &object,
        &tags,
    ];
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(field, out);
    }
    out.push_str("\r\n");
}

/// What begins like a formula gets an apostrophe before it: who opens the file in a spreadsheet must not run what a traced process
/// chose. To some of them `;` begins a new field. Control characters are none of a field.
fn write(field: &str, out: &mut String) {
    let plain = !field.trim_start_matches([' ', '\'']).starts_with(FORMULA)
        && !field.contains([',', ';', '"'])
        && !field.contains(char::is_control);
    if plain {
        out.push_str(field);
        return;
    }
    out.push('"');
    let mut begins = true;
    for c in field.chars() {
        if begins && FORMULA.contains(&c) {
            out.push('\'');
        }
        // Spaces and quotes before it don't make it less of a formula.
        begins = c == ';' || begins && matches!(c, ' ' | '"' | '\'');
        match c {
            '"' => out.push_str("\"\""),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// How a formula begins.
const FORMULA: [char; 4] = ['=', '+', '-', '@'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_fields_as_the_header() {
        let mut out = String::new();
        line(&crate::alert::tests::read(), &mut out);
        assert_eq!(
            out,
            "2026-01-02T03:04:05.123456789Z,high,bait,shadow-read,cat read /etc/shadow,3,2026-01-02T03:04:01.000000000Z,knark-1,\
             prod,web-0,app,c0ffee,7,1,1000,100,cat,/bin/cat,/,1000,/etc/shadow,T1003\r\n"
        );
        assert_eq!(out.matches(',').count(), HEADER.matches(',').count());
    }

    #[test]
    fn hostile_fields_stay_fields() {
        for (field, want) in [
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("a\"b\"", "\"a\"\"b\"\"\""),
            ("a\r\nb", "\"a\u{fffd}\u{fffd}b\""),
            ("a;=b", "\"a;'=b\""),
            ("a; \"@b", "\"a; \"\"'@b\""),
            (" =b", "\" '=b\""),
            ("\t=b", "\"\u{fffd}=b\""),
            ("=cmd|' /c calc'!A0", "\"'=cmd|' /c calc'!A0\""),
            ("-1", "\"'-1\""),
        ] {
            let mut out = String::new();
            write(field, &mut out);
            assert_eq!(out, want);
        }
    }
}
