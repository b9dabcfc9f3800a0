//! The end of a trace: what was seen and what became of it.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use knark_specs::event::{Limited, NodeSums, SCHEMA, Summary, SummaryKind, Sums};

use crate::render::escape;

/// Adds up the nodes.
pub fn of(nodes: Vec<NodeSums>, ran: Duration) -> Summary {
    let sum = |part: fn(&NodeSums) -> u64| nodes.iter().map(part).fold(0, u64::saturating_add);
    let summary = Sums {
        // A millisecond is as precise as this gets.
        seconds: (ran.as_secs_f64() * 1e3).round() / 1e3,
        shown: sum(|n| n.shown),
        aggregated: sum(|n| n.aggregated),
        filtered: sum(|n| n.filtered),
        lost: sum(lost),
        matches: None,
        nodes,
    };
    Summary { schema: SCHEMA.into(), kind: SummaryKind::Summary, summary }
}

/// The summary for a person: a sentence, and a table where there is more to say than that.
pub fn text(sums: &Sums) -> String {
    let Sums { seconds, shown, aggregated, filtered, lost: total, nodes, matches: _ } = sums;
    let events = if *shown == 1 { "event" } else { "events" };
    let repeats = if *aggregated > 0 { format!(", {aggregated} more in their counts") } else { String::new() };
    let mut text = format!("{shown} {events} shown{repeats}, {filtered} filtered, {total} lost");
    match nodes.as_slice() {
        [] => {}
        [node] => {
            let _ = write!(text, " on {}", escape::cell(&node.node));
        }
        nodes => {
            let _ = write!(text, " on {} nodes", nodes.len());
        }
    }
    let _ = writeln!(text, " in {seconds:.1} s");
    if *total > 0 || nodes.len() > 1 || nodes.iter().any(|n| n.incomplete) {
        for line in table(nodes).lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    for node in nodes {
        let others = node.limited.len().saturating_sub(NAMED);
        let on = if nodes.len() > 1 { format!(" on {}", escape::cell(&node.node)) } else { String::new() };
        for limited in node.limited.iter().take(NAMED) {
            let _ = writeln!(text, "over the rate limit: {}{on}, {} lost", escape::cell(&name(limited)), limited.lost);
        }
        if others > 0 {
            let _ =
                writeln!(text, "over the rate limit: {others} more on {} (-o json has their names)", escape::cell(&node.node));
        }
    }
    text
}

/// As many of a node's containers are named that were over the rate limit.
const NAMED: usize = 5;

/// Whose events were lost.
fn name(limited: &Limited) -> String {
    let Limited { namespace, pod, container, container_id, cgroup, .. } = limited;
    let container = if container.is_empty() { container_id.get(..12).unwrap_or(container_id) } else { container };
    if !cgroup.is_empty() {
        return cgroup.clone();
    }
    let known: Vec<_> = [namespace.as_str(), pod, container].into_iter().filter(|part| !part.is_empty()).collect();
    if known.is_empty() { "others".to_owned() } else { known.join("/") }
}

fn table(nodes: &[NodeSums]) -> Table {
    let mut table = Table::new();
    let counted = nodes.iter().any(|node| node.aggregated > 0);
    let mut header = vec!["NODE", "SEEN", "SHOWN", "FILTERED", "LOST", "WHERE"];
    if counted {
        header.insert(3, "AGGREGATED");
    }
    let last = header.len() - 1;
    table.load_style(presets::NOTHING).set_header(header);
    for node in nodes {
        let mut stages: Vec<_> = node.lost.iter().filter(|(_, n)| **n > 0).map(|(stage, n)| format!("{n} {stage}")).collect();
        if node.incomplete {
            stages.push("the stream broke off".to_owned());
        }
        let aggregated = counted.then_some(node.aggregated);
        let numbers = [node.seen, node.shown].into_iter().chain(aggregated).chain([node.filtered, lost(node)]);
        let numbers = numbers.map(|number| number.to_string());
        table.add_row(std::iter::once(escape::cell(&node.node).into_owned()).chain(numbers).chain([stages.join(", ")]));
    }
    for column in table.column_iter_mut() {
        if (1..last).contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_padding((0, 2));
    }
    table
}

fn lost(node: &NodeSums) -> u64 {
    node.lost.values().fold(0, |sum: u64, n| sum.saturating_add(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_numbers_add_up_and_say_whose_they_are() {
        let limited = vec![Limited { pod: "web".into(), lost: 2, ..Limited::default() }];
        let lost = [("rate-limit".to_owned(), 2)].into();
        let storm =
            NodeSums { node: "a".into(), seen: 20, shown: 10, aggregated: 7, filtered: 1, lost, limited, ..NodeSums::default() };
        let calm = NodeSums { node: "b".into(), seen: 1, shown: 1, ..NodeSums::default() };
        let want = "\
11 events shown, 7 more in their counts, 1 filtered, 2 lost on 2 nodes in 0.0 s
NODE  SEEN  SHOWN  AGGREGATED  FILTERED  LOST  WHERE
a       20     10           7         1     2  2 rate-limit
b        1      1           0         0     0
over the rate limit: web on a, 2 lost
";
        assert_eq!(text(&of(vec![storm, calm], Duration::ZERO).summary), want);
    }
}
