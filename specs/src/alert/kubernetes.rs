//! What a Kubernetes Event on a pod says of an alert.

use super::{Notice, subject};

/// The API server takes no longer note of an Event (`events.k8s.io/v1`).
const NOTE: usize = 1_024;
/// Nor a longer reason or action.
const REASON: usize = 128;

/// Why there is an Event: one word, as `kubectl get events` shows it.
pub fn reason(notice: &Notice) -> String {
    let words = notice.rule().rule.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let reason: String = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    if reason.is_empty() { "RuleMatched".to_owned() } else { subject::shorten(&reason, REASON).replace('…', "") }
}

/// What it says.
pub fn note(notice: &Notice) -> String {
    let (rule, count) = (notice.rule(), notice.alert.count);
    let container = notice.event.container.as_ref().map_or("", |container| &container.name);
    let place = if container.is_empty() { String::new() } else { format!(" in container {container}") };
    let times = if count > 1 { format!(", {count} times") } else { String::new() };
    let text = format!("[{}] {}{place}{times} (policy {})", rule.severity.name(), rule.message, rule.policy);
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    subject::shorten(&text, NOTE).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_happened_within_its_limits() {
        let mut notice = crate::alert::tests::read();
        assert_eq!(reason(&notice), "ShadowRead");
        assert_eq!(note(&notice), "[high] cat read /etc/shadow in container app, 3 times (policy bait)");
        notice.matches[0].message = "ä\n".repeat(4096);
        notice.matches[0].rule = "a".repeat(4096);
        assert!(note(&notice).len() <= NOTE && reason(&notice).len() <= REASON);
        notice.matches[0].rule = "ä-".into();
        assert_eq!(reason(&notice), "RuleMatched");
    }
}
