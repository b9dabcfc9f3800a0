//! Requests to the Kubernetes API in a batch.

use minicbor::{Decode, Encode, bytes::ByteSlice};

/// How far a request has come.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum ApiStage {
    /// It has begun, and will take long.
    #[n(0)]
    Started,
    /// It has ended.
    #[n(1)]
    #[default]
    Complete,
}

impl ApiStage {
    /// The name as JSON shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Complete => "complete",
        }
    }
}

/// Whether a request was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum ApiDecision {
    /// The user may.
    #[n(0)]
    Allowed,
    /// The user may not.
    #[n(1)]
    Denied,
    /// Nobody knows who it was.
    #[n(2)]
    Unauthenticated,
}

impl ApiDecision {
    /// The name as JSON shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// A request to the Kubernetes API. Empty bytes: it isn't known, or there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Api<'b> {
    /// `CLOCK_BOOTTIME`, ns: of the beginning or the end, as `stage` says.
    #[n(0)]
    pub time_ns: u64,
    /// Slot of the API server's process.
    #[n(1)]
    pub process: u32,
    /// How far it has come.
    #[n(2)]
    pub stage: ApiStage,
    /// The same in all items of one request.
    #[n(3)]
    pub request_id: &'b str,
    /// Verb.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub verb: &'b [u8],
    /// API group.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub group: &'b [u8],
    /// The group's version.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub version: &'b [u8],
    /// Resource.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub resource: &'b [u8],
    /// Subresource.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub subresource: &'b [u8],
    /// Namespace.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub namespace: &'b [u8],
    /// The object's name.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub name: &'b [u8],
    /// Path and query, as asked for.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub uri: &'b [u8],
    /// HTTP method.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub method: &'b [u8],
    /// Who it acts as.
    #[cbor(n(13), borrow = "'b")]
    pub user: Option<ApiUser<'b>>,
    /// Who really made it, where that is someone else.
    #[cbor(n(14), borrow = "'b")]
    pub impersonator: Option<ApiUser<'b>>,
    /// Whether it was allowed.
    #[n(15)]
    pub decision: Option<ApiDecision>,
    /// HTTP status.
    #[n(16)]
    pub code: Option<u16>,
    /// When it came in (`CLOCK_BOOTTIME`, ns).
    #[n(17)]
    pub received_ns: Option<u64>,
    /// Bytes of the response's body, before compression.
    #[n(18)]
    pub response_bytes: Option<u64>,
    /// The peer's address, without its port.
    #[cbor(n(19), with = "minicbor::bytes")]
    pub source: &'b [u8],
    /// The client as it names itself.
    #[cbor(n(20), with = "minicbor::bytes")]
    pub user_agent: &'b [u8],
    /// The id that the API server gave it.
    #[cbor(n(21), with = "minicbor::bytes")]
    pub audit_id: &'b [u8],
    /// What was sent.
    #[cbor(n(22), borrow = "'b")]
    pub request_body: Option<ApiBody<'b>>,
    /// What was answered.
    #[cbor(n(23), borrow = "'b")]
    pub response_body: Option<ApiBody<'b>>,
    /// Fields that lack their end, by their names in JSON.
    #[cbor(n(24), borrow = "'b")]
    pub truncated: Vec<&'b str>,
}

/// A user as the API server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ApiUser<'b> {
    /// Name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: &'b [u8],
    /// UID.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub uid: &'b [u8],
    /// Groups.
    #[cbor(n(2), borrow = "'b")]
    pub groups: Vec<&'b ByteSlice>,
}

/// A body: JSON or Kubernetes' protobuf as it was in the API server's memory, or what [`crate::body::write`] made of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ApiBody<'b> {
    /// Its bytes, or as many of them as were kept.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: &'b [u8],
    /// How many there were, where that is more.
    #[n(1)]
    pub truncated_from: Option<u64>,
}
