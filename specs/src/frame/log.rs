//! What a tracer says that reads an audit log instead of tracing.

use minicbor::{Decode, Encode};

/// Where a tracer's pod has the folder of the node that the log lies in.
pub const LOG_FOLDER: &str = "/host/log";

/// Which audit log to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct LogPlan {
    /// Its file's name in [`LOG_FOLDER`], or the name of a folder there; empty: the log of that folder itself.
    #[n(0)]
    pub name: String,
    /// It goes on for as long as something may be added.
    #[n(1)]
    pub follow: bool,
}

/// The next of a log. Of a tracer with a [`LogPlan`], batches hold these instead of items, one CBOR value after another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum LogPart<'b> {
    /// What follows is of the file of this name.
    #[n(0)]
    File(#[n(0)] &'b str),
    /// Bytes as they were written, uncompressed.
    #[n(1)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] &'b [u8]),
    /// The file has ended; maybe there is something to say of that, after its name.
    #[n(2)]
    Ended(#[n(0)] Option<&'b str>),
    /// The file ends here, since this went wrong.
    #[n(3)]
    Broken(#[n(0)] &'b str),
}
