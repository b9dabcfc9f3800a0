//! Alerts to Debian's rsyslog, by all ways that it takes.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use knark_tests::program::seen;

use super::{account, run, server::certificates};

/// A daemon of the test's own.
struct Rsyslog(Child);

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one that writes each message, as it took it apart, to `messages` in the folder.
fn start(folder: &Path, port: u16, tls_port: u16) -> Rsyslog {
    let at = folder.display();
    let config = format!(
        r#"
global(workDirectory="{at}" defaultNetstreamDriverCAFile="{at}/ca.pem" defaultNetstreamDriverCertFile="{at}/server.pem"
  defaultNetstreamDriverKeyFile="{at}/server.key")
module(load="imudp")
module(load="imptcp")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="all")
input(type="imptcp" address="127.0.0.1" port="{port}" ruleset="all")
input(type="imtcp" address="127.0.0.1" port="{tls_port}" ruleset="all")
input(type="imuxsock" Socket="{at}/log" UseSpecialParser="off" ruleset="all")
template(name="parts" type="string" string="%inputname%|%pri%|%protocol-version%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\n")
ruleset(name="all") {{ action(type="omfile" file="{at}/messages" template="parts") }}
"#
    );
    let file = folder.join("rsyslog.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(&file).arg("-i").arg(folder.join("pid")).stdout(Stdio::null());
    Rsyslog(command.spawn().expect("rsyslogd (`tests/setup.sh alerts` installs it)"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_real_daemon_takes_messages_apart_as_they_are_meant() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (port, tls_port) = (free_port(), free_port());
    let _daemon = start(folder.path(), port, tls_port);
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    until("rsyslogd listens", &|| {
        folder.path().join("log").exists()
            && [port, tls_port].iter().all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
    });
    let at = folder.path().display();
    let messages = || fs::read_to_string(folder.path().join("messages")).unwrap_or_default();
    for (input, receiver) in [
        ("imudp", format!("udp://127.0.0.1:{port}")),
        ("imptcp", format!("tcp://127.0.0.1:{port}")),
        ("imtcp", format!("tls://localhost:{tls_port}#caFile={at}/ca.pem")),
        ("imuxsock", format!("unix:{at}/log")),
    ] {
        let output = run(&folder, 3, &["--alert-to", &format!("syslog:{receiver}")]);
        assert!(output.status.success(), "{}", seen(&output));
        assert!(account(&output)[0].ends_with(": 4 delivered"), "{}", seen(&output));
        let of = |messages: &str| messages.lines().filter(|line| line.starts_with(input)).map(str::to_owned).collect::<Vec<_>>();
        until(input, &|| of(&messages()).len() == 4);
        // What imuxsock calls the host is its own.
        let want = "|1|knark-1|knark|passwd-read|[knark@32473 policy=\"bait\" rule=\"passwd-read\" severity=\"high\" count=\"2\" \
                    namespace=\"prod\" pod=\"web-7d9f8b6c5-x2x7k\" container=\"app\" pid=\"4711\" exe=\"/bin/sh\" user=\"1000\" \
                    object=\"/etc/passwd\"]|";
        let last = of(&messages()).pop().unwrap_or_default();
        assert!(last.contains(want) && last.ends_with("/bin/sh read /etc/passwd"), "{input}: {last}");
        assert!(last.starts_with(&format!("{input}|authpriv.err|")) || last.starts_with(&format!("{input}|83|")), "{last}");
    }
}
