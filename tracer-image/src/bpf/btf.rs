//! Offsets of members, out of a kernel's BTF.
/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not BTF, cut off, or contradictory.
    #[error("{0}")]
    Malformed(&'static str),
}
