//! What rules ask of one event, each found out once and only when a rule asks.

mod api;

use std::{borrow::Cow, cell::OnceCell};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::pattern::{Paths, PatternId, Texts};
use crate::{
    event::{Event, What},
    frame::FileOp,
    path,
};

pub use api::ApiField;

/// The patterns of all rules.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    /// Of paths.
    pub paths: Paths,
    /// Of other texts.
    pub texts: Texts,
}

/// An event, and which patterns match its parts.
pub struct Facts<'e> {
    /// The event.
    pub event: &'e Event,
    patterns: &'e Patterns,
    subject: OnceCell<Vec<PatternId>>,
    same: OnceCell<Vec<PatternId>>,
    exe: OnceCell<Vec<PatternId>>,
    ancestors: OnceCell<Vec<PatternId>>,
    comm: OnceCell<Vec<PatternId>>,
    args: OnceCell<Vec<PatternId>>,
    namespace: OnceCell<Vec<PatternId>>,
    container: OnceCell<Vec<PatternId>>,
    xattr: OnceCell<Vec<PatternId>>,
    api: [OnceCell<Vec<PatternId>>; ApiField::ALL.len()],
}

/// The bytes of a text that may not have been UTF-8.
pub fn bytes<'t>(text: &'t str, b64: Option<&str>) -> Cow<'t, [u8]> {
    match b64.and_then(|b64| BASE64.decode(b64).ok()) {
        Some(bytes) => Cow::Owned(bytes),
        None => Cow::Borrowed(text.as_bytes()),
    }
}

impl<'e> Facts<'e> {
    /// Nothing is known yet.
    pub fn of(event: &'e Event, patterns: &'e Patterns) -> Self {
        Self {
            event,
            patterns,
            subject: OnceCell::new(),
            same: OnceCell::new(),
            exe: OnceCell::new(),
            ancestors: OnceCell::new(),
            comm: OnceCell::new(),
            args: OnceCell::new(),
            namespace: OnceCell::new(),
            container: OnceCell::new(),
            xattr: OnceCell::new(),
            api: Default::default(),
        }
    }

    /// Path patterns that match what the event is about: the file by either name, or the executable by either name.
    pub fn subject(&self) -> &[PatternId] {
        self.subject.get_or_init(|| match &self.event.what {
            What::File { file } => {
                // What a symbolic link says is no file that anything is done to.
                let to = file.to.as_ref().filter(|_| file.op != FileOp::Symlink);
                let names = std::iter::once(&file.path).chain(to);
                self.paths(names.map(|path| bytes(&path.path, path.path_b64.as_deref())))
            }
            What::Exec { exec } => {
                let process = &self.event.process;
                // A script is called as it was typed, often from its own folder.
                let cwd = bytes(&process.cwd, process.cwd_b64.as_deref());
                let filename = path::join(&cwd, &bytes(&exec.filename, exec.filename_b64.as_deref()));
                self.paths([bytes(&process.exe, process.exe_b64.as_deref()), Cow::Owned(filename)].into_iter())
            }
            What::Exit { .. } | What::Api { .. } => Vec::new(),
        })
    }

    /// Path patterns that match another path of a file that the event is about.
    pub fn same(&self) -> &[PatternId] {
        let What::File { file } = &self.event.what else { return &[] };
        self.same.get_or_init(|| {
            let b64 = file.same_as_b64.as_ref();
            self.paths(file.same_as.iter().enumerate().map(|(at, path)| bytes(path, b64.and_then(|all| all.get(at)))))
        })
    }

    /// Path patterns that match the process's executable.
    pub fn exe(&self) -> &[PatternId] {
        let process = &self.event.process;
        self.exe.get_or_init(|| self.paths(std::iter::once(bytes(&process.exe, process.exe_b64.as_deref()))))
    }

    /// Path patterns that match the executable of any ancestor.
    pub fn ancestors(&self) -> &[PatternId] {
        let ancestors = &self.event.process.ancestors;
        self.ancestors.get_or_init(|| self.paths(ancestors.iter().map(|ancestor| Cow::Borrowed(ancestor.exe.as_bytes()))))
    }

    /// Text patterns that match the process's name.
    pub fn comm(&self) -> &[PatternId] {
        let process = &self.event.process;
        self.comm.get_or_init(|| self.texts(std::iter::once(bytes(&process.comm, process.comm_b64.as_deref()))))
    }

    /// Text patterns that match any argument.
    pub fn args(&self) -> &[PatternId] {
        self.args.get_or_init(|| self.texts((0..self.event.process.args.len()).map(|at| self.argument(at))))
    }

    /// Text patterns that match a field of a request to the Kubernetes API.
    pub fn api(&self, field: ApiField) -> &[PatternId] {
        let What::Api { api } = &self.event.what else { return &[] };
        self.api[field as usize].get_or_init(|| self.texts(field.texts(api).map(|text| Cow::Borrowed(text.as_bytes()))))
    }

    /// Text patterns that match the pod's namespace; of a request to the Kubernetes API, that of what it is about.
    pub fn namespace(&self) -> &[PatternId] {
        if let What::Api { .. } = &self.event.what {
            return self.api(ApiField::Namespace);
        }
        let namespace = self.event.kubernetes.as_ref().map(|pod| Cow::Borrowed(pod.namespace.as_bytes()));
        self.namespace.get_or_init(|| self.texts(namespace.into_iter()))
    }

    /// Text patterns that match the container's name.
    pub fn container(&self) -> &[PatternId] {
        let container = self.event.container.as_ref().map(|container| Cow::Borrowed(container.name.as_bytes()));
        self.container.get_or_init(|| self.texts(container.into_iter()))
    }

    /// Text patterns that match the extended attribute's name.
    pub fn xattr(&self) -> &[PatternId] {
        self.xattr.get_or_init(|| match &self.event.what {
            What::File { file } => self.texts(file.xattr.iter().map(|name| Cow::Borrowed(name.as_bytes()))),
            What::Exec { .. } | What::Exit { .. } | What::Api { .. } => Vec::new(),
        })
    }

    /// Text patterns that match one argument.
    pub fn argument_patterns(&self, at: usize) -> Vec<PatternId> {
        self.texts(std::iter::once(self.argument(at)))
    }

    /// The bytes of an argument.
    fn argument(&self, at: usize) -> Cow<'e, [u8]> {
        let process = &self.event.process;
        bytes(process.args.get(at).unwrap_or_default(), process.args_b64.as_ref().and_then(|all| all.get(at)))
    }

    fn paths<'t>(&self, paths: impl Iterator<Item = Cow<'t, [u8]>>) -> Vec<PatternId> {
        let mut found: Vec<_> = paths.flat_map(|path| self.patterns.paths.find(&path)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn texts<'t>(&self, texts: impl Iterator<Item = Cow<'t, [u8]>>) -> Vec<PatternId> {
        let mut found = Vec::new();
        texts.for_each(|text| self.patterns.texts.find_into(&text, &mut found));
        found.sort_unstable();
        found.dedup();
        found
    }
}
