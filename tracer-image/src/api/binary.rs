//! What is known of a build of the API server: where the probes go and where in its memory what they read lies. Told by the program
//! itself, whose tables of functions and types outlast stripping; nothing is assumed of a version.

use std::{borrow::Cow, collections::HashMap};

use gobin::{
    GoBinary,
    structures::{
        Arch,
        types::{GoType, TypeDetail},
    },
};
use knark_abi::{API_STRUCTURE_BYTES, ApiLayout, server};
use serde::{Deserialize, Serialize};

use super::code::{self, Call, Machine, Words};

/// A larger program isn't looked into, in bytes.
pub const MAX_PROGRAM: u64 = 192 << 20;
/// Of a function's code so much is decoded, in bytes.
const MAX_CODE: usize = 64 << 10;
/// Copies of one function that inlining has left.
const MAX_COPIES: usize = 4;

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The version of its main module, such as `v1.34.4`; empty where it doesn't say.
    pub version: String,
    /// The version of Go that built it.
    pub go: String,
    /// Where things lie; its addresses are without the offset that the program is loaded at.
    pub layout: ApiLayout,
    /// Where probes go.
    pub sites: Vec<Site>,
    /// Where those for bodies go; or what it lacks for that, in words.
    pub bodies: Result<Vec<Site>, String>,
}

/// A place for a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The program that goes there.
    pub program: Cow<'static, str>,
    /// In the file, in bytes.
    pub offset: u64,
}

/// Why a program isn't one that can be traced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Misfit {
    /// Not a Go program, or its tables are unreadable.
    #[error("it is no Go program whose tables can be read")]
    NotGo,
    /// An architecture whose registers aren't known.
    #[error("it is built for an architecture other than x86-64 and arm64")]
    Architecture,
    /// What should be there isn't.
    #[error("it lacks {0}: this version of knark doesn't know such builds of the API server")]
    Missing(String),
}

/// Finds everything out.
pub fn inspect(program: &[u8]) -> Result<Build, Misfit> {
    let binary = GoBinary::parse(program).ok_or(Misfit::NotGo)?;
    let machine = match binary.arch() {
        Arch::X86_64 => Machine::Amd64,
        Arch::Arm64 => Machine::Arm64,
        _ => return Err(Misfit::Architecture),
    };
    let functions = Functions::of(&binary, machine)?;
    let types = Types::of(&binary);
    let go = binary.go_version().unwrap_or_default();
    let (sites, servers) = sites(&functions)?;
    Ok(Build {
        version: binary.build_info().and_then(|info| info.main_version).unwrap_or_default().to_owned(),
        go: go.to_owned(),
        layout: layout(&types, &functions, servers, go)?,
        sites,
        bodies: bodies(&functions).map_err(|misfit| misfit.to_string()),
    })
}

/// Both or none: without the request's, nobody knows which responses are wanted.
fn bodies(functions: &Functions<'_>) -> Result<Vec<Site>, Misfit> {
    let api = |name: &str| format!("{APISERVER}endpoints/handlers{name}");
    let read = functions.address(&api(".limitedReadBody"))?;
    let reader = api(".limitedReadBodyWithRecordMetric");
    let requests = functions.one(&reader, |one| functions.results(one, Call::To(read), Words::Three))?;
    let writer = api("/responsewriters.(*deferredResponseWriter).Write");
    let responses = functions.one(&writer, |one| functions.arguments(one))?;
    let all = [("api_request_body", requests), ("api_response_body", responses)];
    let site = |program, offset| Site { program: Cow::Borrowed(program), offset };
    Ok(all.into_iter().flat_map(|(program, places)| places.into_iter().map(move |offset| site(program, offset))).collect())
}

const APISERVER: &str = "k8s.io/apiserver/pkg/";

/// The functions that probes go to, by the end of their names after [`APISERVER`], and others by their whole names.
fn sites(functions: &Functions<'_>) -> Result<(Vec<Site>, [bool; server::COUNT]), Misfit> {
    let api = |name: &str| format!("{APISERVER}{name}");
    let mut sites = Vec::new();
    let mut add = |program, found: Result<Vec<u64>, Misfit>| -> Result<(), Misfit> {
        sites.extend(found?.into_iter().map(|offset| Site { program: Cow::Borrowed(program), offset }));
        Ok(())
    };
    add("api_begin", functions.called_by("withPanicRecovery", "withAuditInit", |one| functions.arguments(one)))?;
    add("api_user", users(functions))?;
    let attributes = functions.address(&api("endpoints/filters.GetAuthorizerAttributes"))?;
    add(
        "api_attributes",
        functions.closures("withAuthorization", |one| functions.results(one, Call::To(attributes), Words::Two)),
    )?;
    let forbidden = api("endpoints/handlers/responsewriters.Forbidden");
    add("api_denied", functions.one(&forbidden, |one| functions.arguments(one)))?;
    let aborted = api("endpoints/metrics.RecordRequestAbort");
    add("api_aborted", functions.one(&aborted, |one| functions.arguments(one)))?;
    add("api_end_http1", functions.one(ENDS[server::HTTP1], |one| functions.arguments(one)))?;
    add("api_closed", functions.one("net/http.(*conn).serve.func1", |one| functions.arguments(one)))?;
    // Either serves HTTP/2: which one, the build decides.
    let mut servers = [true, false, false];
    for (program, which) in [("api_end_http2", server::HTTP2), ("api_end_bundled", server::BUNDLED)] {
        let found = functions.one(ENDS[which], |one| functions.arguments(one));
        servers[which] = found.is_ok();
        if found.is_ok() || which == server::BUNDLED && !servers[server::HTTP2] {
            add(program, found)?;
        }
    }
    Ok((sites, servers))
}

/// Once for a request, in the filter that authenticates it; or at all of a union's authenticators, which are within one another.
fn users(functions: &Functions<'_>) -> Result<Vec<u64>, Misfit> {
    let once = functions
        .address("time.Now")
        .and_then(|now| functions.all_closures("withAuthentication", |one| functions.passed_by(one, now)));
    once.or_else(|_| {
        let authenticate = format!("{APISERVER}authentication/request/union.(*unionAuthRequestHandler).AuthenticateRequest");
        functions.one(&authenticate, |one| functions.results(one, Call::Indirect, Words::Two))
    })
}

const ENDS: [&str; server::COUNT] = [
    "net/http.(*response).finishRequest",
    "golang.org/x/net/http2.(*responseWriter).handlerDone",
    "net/http.(*http2responseWriter).handlerDone",
];

fn layout(types: &Types<'_>, functions: &Functions<'_>, servers: [bool; server::COUNT], go: &str) -> Result<ApiLayout, Misfit> {
    let g = types.of_struct("runtime", "*runtime.g")?;
    let request = types.of_struct("net/http", "*http.Request")?;
    let attributes = types.of_struct(&format!("{APISERVER}authorization/authorizer"), "*authorizer.AttributesRecord")?;
    let user = types.of_struct(&format!("{APISERVER}authentication/user"), "*user.DefaultInfo")?;
    let authenticated = types.of_struct(&format!("{APISERVER}authentication/authenticator"), "*authenticator.Response")?;
    let context = types.of_struct("context", "*context.valueCtx")?;
    let audit = types.of_struct(&format!("{APISERVER}audit"), "*audit.AuditContext")?;
    let event = types.of_struct(&format!("{APISERVER}apis/audit"), "*audit.Event")?;
    let (mut status, mut written) = ([0; server::COUNT], [0; server::COUNT]);
    for (which, package, name, bytes) in [
        (server::HTTP1, "net/http", "*http.response", "written"),
        (server::HTTP2, "golang.org/x/net/http2", "*http2.responseWriterState", "wroteBytes"),
        (server::BUNDLED, "net/http", "*http.http2responseWriterState", "wroteBytes"),
    ] {
        if servers[which] {
            let state = types.of_struct(package, name)?;
            (status[which], written[which]) = (state.field("status")?, state.field(bytes)?);
        }
    }
    let mut layout = ApiLayout {
        default_info: functions.address(&format!("{APISERVER}authentication/user.(*DefaultInfo).GetExtra"))?,
        audit_context: audit.pointer,
        g_goid: g.field("goid")?,
        g_parent_goid: g.field("parentGoid")?,
        request_method: request.field("Method")?,
        request_uri: request.field("RequestURI")?,
        request_remote_addr: request.field("RemoteAddr")?,
        request_header: request.field("Header")?,
        request_context: request.field("ctx")?,
        context_value: context.field("val")?,
        // The event was exported up to v1.32.
        audit_context_id: audit.field("event").or_else(|_| audit.field("Event"))? + event.field("AuditID")?,
        attributes_user: attributes.field("User")?,
        attributes_verb: attributes.field("Verb")?,
        attributes_namespace: attributes.field("Namespace")?,
        attributes_group: attributes.field("APIGroup")?,
        attributes_version: attributes.field("APIVersion")?,
        attributes_resource: attributes.field("Resource")?,
        attributes_subresource: attributes.field("Subresource")?,
        attributes_name: attributes.field("Name")?,
        user_name: user.field("Name")?,
        user_uid: user.field("UID")?,
        user_groups: user.field("Groups")?,
        response_user: authenticated.field("User")?,
        status,
        written,
        bucket_maps: u32::from(has_bucket_maps(go)),
        ..ApiLayout::default()
    };
    let at = &layout;
    let bytes = |name, fields: &[u32]| {
        // Each is two words long, or has two that matter.
        let end = fields.iter().max().map_or(0, |last| last + 16);
        if end as usize <= API_STRUCTURE_BYTES { Ok(end) } else { Err(missing("a known size of the type", name)) }
    };
    let of_request = [at.request_method, at.request_uri, at.request_remote_addr, at.request_header, at.request_context];
    let of_attributes = [
        [at.attributes_user, at.attributes_verb, at.attributes_namespace, at.attributes_group],
        [at.attributes_version, at.attributes_resource, at.attributes_subresource, at.attributes_name],
    ];
    let request_bytes = bytes(request.name, &of_request)?;
    let attributes_bytes = bytes(attributes.name, of_attributes.as_flattened())?;
    let user_bytes = bytes(user.name, &[at.user_name, at.user_uid, at.user_groups])?;
    (layout.request_bytes, layout.attributes_bytes, layout.user_bytes) = (request_bytes, attributes_bytes, user_bytes);
    Ok(layout)
}

/// Go 1.24 brought other maps.
fn has_bucket_maps(go: &str) -> bool {
    let minor: String = go.strip_prefix("go1.").unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    minor.parse::<u32>().is_ok_and(|minor| minor < 24)
}

/// Those functions that matter, by their names.
struct Functions<'b> {
    binary: &'b GoBinary<'b>,
    machine: Machine,
    /// Address and length.
    by_name: HashMap<&'b str, (u64, usize)>,
}

impl<'b> Functions<'b> {
    fn of(binary: &'b GoBinary<'b>, machine: Machine) -> Result<Self, Misfit> {
        let table = binary.pclntab().ok_or(Misfit::NotGo)?;
        let text = binary.text_va().ok_or(Misfit::NotGo)?;
        let mut by_name = HashMap::new();
        let mut entries = table.func_entries().peekable();
        while let Some((entry, data)) = entries.next() {
            let name = table.parse_func(data).and_then(|data| table.func_name(u32::try_from(data.name_off).ok()?));
            let Some(name) = name else { continue };
            let next = entries.peek().map_or(entry, |(next, _)| *next);
            if name.starts_with("k8s.io/apiserver/")
                || name.starts_with("net/http.")
                || name.starts_with("golang.org/x/net/http2.")
                || name == "time.Now"
            {
                let length = usize::try_from(next.saturating_sub(entry)).unwrap_or(0).min(MAX_CODE);
                if let Some(address) = text.checked_add(u64::from(entry)) {
                    by_name.insert(name, (address, length));
                }
            }
        }
        Ok(Self { binary, machine, by_name })
    }

    fn address(&self, name: &str) -> Result<u64, Misfit> {
        self.by_name.get(name).map(|(address, _)| *address).ok_or_else(|| missing("the function", name))
    }

    /// The place that `find` gives in the function of this name.
    fn one(&self, name: &str, find: impl Fn((u64, usize)) -> Option<u64>) -> Result<Vec<u64>, Misfit> {
        let function = self.by_name.get(name).ok_or_else(|| missing("the function", name))?;
        Ok(vec![find(*function).ok_or_else(|| missing("a place for a probe in the function", name))?])
    }

    /// The same in each copy of the function literal within the function `within`.
    fn closures(&self, within: &str, find: impl Fn((u64, usize)) -> Option<u64>) -> Result<Vec<u64>, Misfit> {
        places(within, self.copies(within).filter_map(|(_, function)| find(function)))
    }

    /// The same, where each copy must have such a place.
    fn all_closures(&self, within: &str, find: impl Fn((u64, usize)) -> Option<u64>) -> Result<Vec<u64>, Misfit> {
        let found: Option<Vec<_>> = self.copies(within).map(|(_, function)| find(function)).collect();
        places(within, found.unwrap_or_default().into_iter())
    }

    /// The same, of those copies alone that are built into the same function as the literal within `caller` is, by which they are
    /// called there. Where none is, as where such functions aren't built into others, there must be no more than one.
    fn called_by(&self, within: &str, caller: &str, find: impl Fn((u64, usize)) -> Option<u64>) -> Result<Vec<u64>, Misfit> {
        let callers: Vec<&str> = self.copies(caller).map(|(into, _)| into).collect();
        let (called, others): (Vec<_>, Vec<_>) = self.copies(within).partition(|(into, _)| callers.contains(into));
        let chosen = if called.is_empty() && others.len() == 1 { others } else { called };
        let found: Option<Vec<_>> = chosen.into_iter().map(|(_, function)| find(function)).collect();
        places(within, found.unwrap_or_default().into_iter())
    }

    /// Copies of the function literal within the function `within`, and what each was built into: with that, its name begins, and the
    /// literal is numbered there.
    fn copies(&self, within: &str) -> impl Iterator<Item = (&'b str, (u64, usize))> {
        self.by_name.iter().filter_map(move |(name, function)| Some((built_into(name, within)?, *function)))
    }

    fn arguments(&self, function: (u64, usize)) -> Option<u64> {
        self.file_offset(function.0, code::arguments(self.machine, self.code(function)?, function.0)?)
    }

    fn results(&self, function: (u64, usize), call: Call, error: Words) -> Option<u64> {
        self.file_offset(function.0, code::results(self.machine, self.code(function)?, function.0, call, error)?)
    }

    fn passed_by(&self, function: (u64, usize), next: u64) -> Option<u64> {
        self.file_offset(function.0, code::passed_by(self.machine, self.code(function)?, function.0, next)?)
    }

    fn code(&self, (address, length): (u64, usize)) -> Option<&'b [u8]> {
        let code = self.binary.context().slice_at_va(address)?;
        code.get(..length.min(code.len()))
    }

    fn file_offset(&self, address: u64, within: usize) -> Option<u64> {
        self.binary.context().va_to_file(address.checked_add(within as u64)?).map(|offset| offset as u64)
    }
}

/// What a copy of the function literal within the function `within` was built into, by its name; empty where it stands alone.
fn built_into<'n>(name: &'n str, within: &str) -> Option<&'n str> {
    let (outer, _) = name.rsplit_once(".func").filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let into = outer.strip_suffix(within)?.strip_suffix('.')?;
    // A.B.WithC.withC, where B calls WithC, and that withC.
    let mut exported = within.chars();
    let first = exported.next()?.to_ascii_uppercase();
    Some(
        into.strip_suffix(exported.as_str())
            .and_then(|into| into.strip_suffix(first))
            .map_or("", |into| into.trim_end_matches('.')),
    )
}

fn places(within: &str, found: impl Iterator<Item = u64>) -> Result<Vec<u64>, Misfit> {
    let mut places: Vec<u64> = found.collect();
    places.sort_unstable();
    if places.is_empty() || places.len() > MAX_COPIES {
        return Err(missing("a place for a probe in the function", &format!("{APISERVER}...{within}.func1")));
    }
    Ok(places)
}

/// The structures that matter, by package and name.
struct Types<'b> {
    /// With the address of the pointer type.
    found: HashMap<(&'b str, &'b str), (u64, GoType<'b>)>,
}

const TYPES: [&str; 11] = [
    "*runtime.g",
    "*http.Request",
    "*http.response",
    "*http.http2responseWriterState",
    "*http2.responseWriterState",
    "*authorizer.AttributesRecord",
    "*user.DefaultInfo",
    "*authenticator.Response",
    "*context.valueCtx",
    "*audit.AuditContext",
    "*audit.Event",
];

impl<'b> Types<'b> {
    /// The program lists its pointer types; what they point to is found through them.
    fn of(binary: &'b GoBinary<'b>) -> Self {
        let pointed = |pointer: GoType<'b>| match pointer.detail {
            TypeDetail::Pointer { elem_va } => Some((pointer.name, pointer.descriptor_va, binary.type_at(elem_va)?)),
            _ => None,
        };
        let listed = binary.types().filter(|one| TYPES.contains(&one.name)).filter_map(pointed);
        Self { found: listed.map(|(name, at, one)| ((one.pkg_path.unwrap_or_default(), name), (at, one))).collect() }
    }

    fn of_struct<'t>(&'t self, package: &str, name: &'t str) -> Result<Struct<'t, 'b>, Misfit> {
        let found = self.found.iter().find(|((in_package, called), _)| *in_package == package && *called == name);
        found
            .map(|(_, (pointer, one))| Struct { name, pointer: *pointer, one })
            .ok_or_else(|| missing("the type", &format!("{package} {name}")))
    }
}

struct Struct<'t, 'b> {
    name: &'t str,
    /// Address of the type of pointers to it.
    pointer: u64,
    one: &'t GoType<'b>,
}

impl Struct<'_, '_> {
    fn field(&self, name: &str) -> Result<u32, Misfit> {
        let TypeDetail::Struct { fields, .. } = &self.one.detail else { return Err(missing("the structure", self.name)) };
        let offset = fields.iter().find(|field| field.name == name).map(|field| field.offset);
        let inside = offset.filter(|offset| *offset < self.one.size).and_then(|offset| u32::try_from(offset).ok());
        inside.ok_or_else(|| missing("the field", &format!("{}.{name}", self.name)))
    }
}

fn missing(what: &str, name: &str) -> Misfit {
    Misfit::Missing(format!("{what} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_api_server_is_refused() {
        assert_eq!(inspect(b""), Err(Misfit::NotGo));
        assert_eq!(inspect(b"\x7fELF\x02\x01\x01"), Err(Misfit::NotGo));
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(inspect(&own).is_err());
    }

    #[test]
    fn what_a_function_literal_was_built_into_is_in_its_name() {
        for (name, want) in [
            ("s/server.Chain.WithPanicRecovery.withPanicRecovery.func33", Some("s/server.Chain")),
            ("s/server/filters.withPanicRecovery.func1", Some("")),
            ("s/server/filters.WithPanicRecovery.withPanicRecovery.func2", Some("s/server/filters")),
            ("s/server.Chain.WithPanicRecovery.withPanicRecovery.func33.deferwrap1", None),
            ("s/server.Chain.WithPanicRecovery.withPanicRecovery.func33.1", None),
            ("s/server.Chain.WithPanicRecovery.func1", None),
            ("s/server/filters.otherwithPanicRecovery.func1", None),
        ] {
            assert_eq!(built_into(name, "withPanicRecovery"), want, "{name}");
        }
    }

    #[test]
    fn maps_changed_with_go_1_24() {
        for (go, buckets) in [("go1.23.12", true), ("go1.24.0", false), ("go1.26.8 X:foo", false), ("", false)] {
            assert_eq!(has_bucket_maps(go), buckets, "{go}");
        }
    }
}
