//! Where policies come from.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use knark_specs::yaml;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};

use crate::{cluster::Cluster, exit::UsageError};

/// More than this is no file of policies.
const SIZE_AT_MOST: u64 = 16 << 20;

/// Which policies.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Policies")]
pub struct PolicyFlags {
    /// File or folder of policies; - is standard input (repeatable)
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Shipped policies; `kubectl knark policy list` shows them (repeatable)
    #[arg(long = "pack", value_name = "NAME", value_delimiter = ',')]
    pub packs: Vec<String>,
    /// The TracePolicies and TraceLists in the cluster
    #[arg(long)]
    pub from_cluster: bool,
}

/// A text with policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What the user calls it.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

impl PolicyFlags {
    /// Whether any are asked for.
    pub fn is_given(&self) -> bool {
        !self.files.is_empty() || !self.packs.is_empty() || self.from_cluster
    }

    /// Reads all that is asked for.
    pub async fn read(&self, cluster: Option<&Cluster>) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for file in &self.files {
            sources.extend(read(file)?);
        }
        for name in &self.packs {
            sources.push(super::pack(name)?);
        }
        if let Some(cluster) = cluster.filter(|_| self.from_cluster) {
            sources.extend(objects(cluster).await?);
        }
        Ok(sources)
    }
}

/// A file, all files of a folder, or standard input.
pub fn read(path: &Path) -> Result<Vec<Source>> {
    if path.as_os_str() == "-" {
        return Ok(vec![source("standard input", io::stdin())?]);
    }
    let doing = || format!("reading the policies {}", path.display());
    if !fs::metadata(path).with_context(doing)?.is_dir() {
        return Ok(vec![source(&path.display().to_string(), File::open(path).with_context(doing)?)?]);
    }
    let mut files: Vec<_> = fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .with_context(doing)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end.eq_ignore_ascii_case(known)))
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(UsageError::because(format!("the folder {} holds no *.yaml, *.yml or *.json", path.display())));
    }
    files
        .iter()
        .map(|file| source(&file.display().to_string(), File::open(file).with_context(|| format!("reading {}", file.display()))?))
        .collect()
}

fn source(name: &str, from: impl Read) -> Result<Source> {
    let mut bytes = Vec::new();
    from.take(SIZE_AT_MOST + 1).read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
    if bytes.len() as u64 > SIZE_AT_MOST {
        return Err(UsageError::because(format!("{name} has more than {} MiB: that is no file of policies", SIZE_AT_MOST >> 20)));
    }
    match yaml::decode(&bytes) {
        Ok(text) => Ok(Source { name: name.to_owned(), text: text.into_owned() }),
        Err(found) => {
            // What can't be read as text has no lines to show.
            let help = found.help.map(|help| format!(": {help}")).unwrap_or_default();
            Err(UsageError::because(format!("{name}: {}{help}", found.message)))
        }
    }
}

/// The objects in the cluster, each as a source of its own.
async fn objects(cluster: &Cluster) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (kind, plural) in [("TraceList", "tracelists"), ("TracePolicy", "tracepolicies")] {
        let kind = GroupVersionKind::gvk("knark.dev", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let listed = Api::<DynamicObject>::all_with(cluster.client.clone(), &resource).list(&ListParams::default()).await;
        let listed = match listed.map_err(|error| cluster.explain(format!("listing {plural}.knark.dev"), error)) {
            Err(error) if error.is_not_found() => bail!(
                "the cluster has no {plural}.knark.dev: `kubectl knark schema policy --crd | kubectl apply -f -` defines them"
            ),
            listed => listed?,
        };
        for mut object in listed.items {
            object.metadata.managed_fields = None;
            object.types = Some(kube::core::TypeMeta { api_version: "knark.dev/v1alpha1".to_owned(), kind: kind.kind.clone() });
            let name = format!("{plural}.knark.dev/{}", object.metadata.name.clone().unwrap_or_default());
            let text = serde_yaml::to_string(&object).with_context(|| format!("reading {name}"))?;
            sources.push(Source { name, text });
        }
    }
    Ok(sources)
}
