//! `kubectl knark`: what pods execute and which files they touch, live, with nothing installed in the cluster.

fn main() {}
