//! Files that are watched under whatever name: how the kernel knows them, and which of them it is told.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError as LoaderMapError},
    programs::{Program, ProgramError},
};
use knark_abi::FileId;

use super::{AttachError, MapError, link, probes::refused};

/// The program that tells how the kernel knows a file.
pub(super) const PROGRAM: &str = "identify";

const FILES: &str = "the map of watched files";

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(FileId);
#[expect(unsafe_code, reason = "the loader's maps have keys and values that are bytes")]
// SAFETY: `repr(C)`, made of integers, without padding, as knark-abi asserts; and so any bytes are one.
unsafe impl Pod for Key {}

/// The kernel's set of watched files. Records of what is done to them bear their numbers.
pub struct WatchedFiles {
    program: OwnedFd,
    identity: Array<MapData, Key>,
    files: HashMap<MapData, Key, u32>,
}

impl WatchedFiles {
    /// Takes the maps out of what was loaded.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<WatchedFiles, AttachError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| AttachError::Failed {
            what: "setting up the watch on files".into(),
            source,
        };
        let program = match ebpf.program(PROGRAM) {
            Some(Program::RawTracePoint(program)) => program.fd().map_err(|e| failed(e.into()))?.as_fd().try_clone_to_owned(),
            _ => return Err(failed(ProgramError::UnexpectedProgramType.into())),
        };
        let missing = LoaderMapError::InvalidMapType { map_type: 0 };
        let (Some(identity), Some(files)) = (ebpf.take_map("IDENTITY"), ebpf.take_map("WATCHED")) else {
            return Err(failed(missing.into()));
        };
        Ok(WatchedFiles {
            program: program.map_err(|e| failed(e.into()))?,
            identity: Array::try_from(identity).map_err(|e| failed(e.into()))?,
            files: HashMap::try_from(files).map_err(|e| failed(e.into()))?,
        })
    }

    /// How the kernel knows the file that is open there, be it as a path only.
    pub fn identify(&mut self, file: BorrowedFd<'_>) -> io::Result<FileId> {
        let fd = u64::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        if link::run_once(self.program.as_fd(), fd)? != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        self.identity.get(&0, 0).map(|key| key.0).map_err(io::Error::other)
    }

    /// From now on, what is done to this file bears this number, which is not 0.
    pub fn watch(&mut self, file: FileId, number: u32) -> Result<(), MapError> {
        self.files.insert(Key(file), number, 0).map_err(|e| refused(e, FILES))
    }

    /// From now on it bears none.
    pub fn forget(&mut self, file: FileId) -> Result<(), MapError> {
        match self.files.remove(&Key(file)) {
            Ok(()) | Err(LoaderMapError::KeyNotFound) => Ok(()),
            Err(LoaderMapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) => Err(refused(e, FILES)),
        }
    }
}
