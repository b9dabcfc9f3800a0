//! Requests to the Kubernetes API, as probes in the API server see them.

/// `Header::op` of [`crate::kind::API`] records: at which point of a request's life the record was made.
pub mod site {
    /// A request came in and was given an audit id. Texts: method, URI, peer's address and port, user agent, audit id. Only this
    /// site's records have a whole header: of the others' there are `len`, `kind`, `op`, `tgid`, `tid` and `boot_ns`.
    pub const BEGIN: u8 = 0;
    /// An authenticator knew the user. Texts: name, UID, groups.
    pub const USER: u8 = 1;
    /// What it is about was found out, right before it is authorised. Texts: the user's name and UID, verb, namespace, group,
    /// version, resource, subresource, name, the user's groups.
    pub const ATTRIBUTES: u8 = 2;
    /// It was refused, as not permitted.
    pub const DENIED: u8 = 3;
    /// Its handler has returned.
    pub const END: u8 = 4;
    /// The connection of HTTP/1 that it came over has ended.
    pub const CLOSED: u8 = 5;
    /// It is given up: its handler never returns.
    pub const ABORTED: u8 = 6;
    /// How many sites there are.
    pub const COUNT: usize = 7;
}

/// `Header::op` of [`crate::kind::API_BODY`] records: whose body it is.
pub mod body {
    /// The request's.
    pub const REQUEST: u8 = 0;
    /// The response's.
    pub const RESPONSE: u8 = 1;
}

/// Bytes of a body that one record carries.
pub const API_CHUNK: usize = 8 << 10;
/// Bytes of a body that can be copied at most, all records together.
pub const API_BODY_BYTES: usize = 1 << 20;

/// Texts that a record has room for.
pub const API_TEXTS: usize = 28;
/// The place of a user's first group among the texts.
pub const API_GROUPS: usize = 10;
/// Groups of a user that a record holds.
pub const API_GROUPS_MAX: usize = 16;
/// Longest text that is copied, in bytes.
pub const API_TEXT_BYTES: usize = 2048;

/// Of a structure of a Go program so much is copied at most, in bytes.
pub const API_STRUCTURE_BYTES: usize = 512;

/// `ApiBody::texts`: the length, or one of these as well.
pub mod api_text {
    /// The bits that say how many bytes there are.
    pub const LENGTH: u16 = 0x3fff;
    /// It could not be read.
    pub const FAULT: u16 = 0x4000;
    /// It was longer.
    pub const CUT: u16 = 0x8000;
}

/// Follows the header; then the texts, one after another.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ApiBody {
    /// The goroutine.
    pub goroutine: u64,
    /// The one that started it; 0 at the sites that are on the goroutine of the connection.
    pub parent: u64,
    /// At the end: the HTTP status; 0 where none was written.
    pub status: i64,
    /// At the end: bytes of the response's body.
    pub bytes: i64,
    /// How long each text is; see [`api_text`].
    pub texts: [u16; API_TEXTS],
    /// How many groups the user has.
    pub groups: u32,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<ApiBody>() == 96);

/// Follows the header of a piece of a body; then `len` bytes of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ApiChunk {
    /// The goroutine.
    pub goroutine: u64,
    /// The one that started it.
    pub parent: u64,
    /// Where the bytes belong, counted from the body's front.
    pub offset: u64,
    /// How long the body is; of a response, which may be written in pieces, as far as it has come.
    pub total: u64,
    /// How many bytes there are. None: the body is empty, the rest of it isn't wanted, or it could not be read.
    pub len: u32,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<ApiChunk>() == 40);

/// The three servers that Go programs have for HTTP: which one ends a request.
pub mod server {
    /// `net/http` for HTTP/1.
    pub const HTTP1: usize = 0;
    /// `golang.org/x/net/http2`.
    pub const HTTP2: usize = 1;
    /// The copy of it within `net/http`.
    pub const BUNDLED: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// Where things lie in an API server's memory: byte offsets in its build's structures. The value in the map of API servers, by
/// process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the names are those of the Go types: type, then field")]
pub struct ApiLayout {
    /// Address of the method that tells a `user.DefaultInfo` from other users.
    pub default_info: u64,
    /// Address of the type `*audit.AuditContext`.
    pub audit_context: u64,
    pub g_goid: u32,
    pub g_parent_goid: u32,
    /// So many bytes from its front hold all that is wanted of it, at most [`API_STRUCTURE_BYTES`]; so it is with the others.
    pub request_bytes: u32,
    pub request_method: u32,
    pub request_uri: u32,
    pub request_remote_addr: u32,
    pub request_header: u32,
    pub request_context: u32,
    pub context_value: u32,
    /// Through its event.
    pub audit_context_id: u32,
    pub attributes_bytes: u32,
    pub attributes_user: u32,
    pub attributes_verb: u32,
    pub attributes_namespace: u32,
    pub attributes_group: u32,
    pub attributes_version: u32,
    pub attributes_resource: u32,
    pub attributes_subresource: u32,
    pub attributes_name: u32,
    pub user_bytes: u32,
    pub user_name: u32,
    pub user_uid: u32,
    pub user_groups: u32,
    pub response_user: u32,
    /// By [`server`]: the status in the state of a response,
    pub status: [u32; server::COUNT],
    /// and the number of bytes written.
    pub written: [u32; server::COUNT],
    /// Maps are hash tables of buckets, as up to Go 1.23; if 0, of groups.
    pub bucket_maps: u32,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<ApiLayout>() == 2 * 8 + 32 * 4);
