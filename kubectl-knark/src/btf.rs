//! `--btf`: what the kernels of nodes are like that don't describe their own types.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use knark_specs::{frame::BTF_BYTES_AT_MOST, packet::MAX_MESSAGE};

/// What BTF begins with, on a machine that puts the lowest byte first, as all do that can be traced (include/uapi/linux/btf.h).
const MAGIC: [u8; 2] = [0x9f, 0xeb];
/// All else in the message that carries it.
const REST_OF_MESSAGE: usize = 1 << 20;

/// Which file.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tracer pods")]
pub struct BtfFlags {
    /// BTF of the nodes' kernel, for those that have no /sys/kernel/btf/vmlinux
    ///
    /// As it is or compressed by gzip or zstd. It must be of the very build that runs there, such as that package's debugging
    /// information turned into it (pahole --btf_encode_detached) or a file of a collection of them. Kernels that have their own
    /// use that.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
}

impl BtfFlags {
    /// As a plan has it.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        let read =
            |path: &Path| packed(path).with_context(|| format!("reading the kernel's types from {} (--btf)", path.display()));
        self.btf.as_deref().map(read).transpose()
    }
}

fn packed(path: &Path) -> Result<Vec<u8>> {
    let (from, _) = knark_audit_log::decompressed(File::open(path)?)?;
    let mut raw = Vec::new();
    from.take(BTF_BYTES_AT_MOST + 1).read_to_end(&mut raw)?;
    ensure!(raw.starts_with(&MAGIC), "it is no BTF: name a file as `pahole --btf_encode_detached FILE VMLINUX` writes it");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&raw)?;
    let packed = encoder.finish()?;
    let fits = raw.len() as u64 <= BTF_BYTES_AT_MOST && packed.len() <= MAX_MESSAGE - REST_OF_MESSAGE;
    ensure!(fits, "with {} bytes it is too long to be sent to nodes: leave out types of modules", raw.len());
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_types_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("btf");
        let read = || BtfFlags { btf: Some(path.clone()) }.read();
        assert!(BtfFlags { btf: None }.read().unwrap().is_none());
        let error = |error: anyhow::Error| format!("{error:#}");
        assert!(error(read().unwrap_err()).contains("--btf): No such file"));
        std::fs::write(&path, "\x7fELF").unwrap();
        assert!(error(read().unwrap_err()).contains("no BTF"));
        let mut raw = MAGIC.to_vec();
        raw.resize(1 << 20, 0);
        std::fs::write(&path, &raw).unwrap();
        let packed = read().unwrap().unwrap();
        assert!(packed.len() < raw.len() / 100);
        // Compressed already.
        std::fs::write(&path, &packed).unwrap();
        assert_eq!(read().unwrap().unwrap(), packed);
        let mut noise = raw;
        let mut state = 1_u32;
        noise[2..].fill_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        });
        std::fs::write(&path, noise.repeat(4)).unwrap();
        assert!(error(read().unwrap_err()).contains("too long"));
    }
}
