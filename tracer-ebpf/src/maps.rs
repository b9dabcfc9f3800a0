//! What the programs share with user space, and their scratch memory.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use knark_abi::{
    ApiLayout, Count, ExeKey, FileId, INFLIGHT_SMALL, RECORD_BYTES, Rate, RepeatKey, Repeated, WANTED_BYTES, WATCHED_FILES, kind,
};

use crate::{
    once::{Mapping, OpenFile, Writer},
    scratch::Scratch,
};

/// Records; user space sets its size.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// By kind. Each CPU has its own, so counting needs no lock.
#[map]
pub static COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(kind::COUNT as u32, 0);

/// Verdicts by kernfs id.
#[map]
pub static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(16384, 0);

/// The conditions (bits of `knark_abi::scope`) that a process meets.
#[map]
pub static TGIDS: HashMap<u32, u8> = HashMap::with_max_entries(16384, 0);

/// Wanted thread names.
#[map]
pub static COMMS: HashMap<[u8; 16], u8> = HashMap::with_max_entries(64, 0);

/// Wanted exes.
#[map]
pub static EXES: HashMap<ExeKey, u8> = HashMap::with_max_entries(64, 0);

/// API servers, by process.
#[map]
pub static API_SERVERS: HashMap<u32, ApiLayout> = HashMap::with_max_entries(16, 0);

/// Goroutines that have read a request's body, by process and number: how much of the response they have written so far. One that
/// never does is forgotten in its turn.
#[map]
pub static API_RESPONSES: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(8192, 0);

/// What is wanted of which paths; see `knark_abi::WantedKey`.
#[map]
pub static WANTED: LpmTrie<[u8; WANTED_BYTES], u32> = LpmTrie::with_max_entries(1, 0);

/// The numbers of watched files.
#[map]
pub static WATCHED: HashMap<FileId, u32> = HashMap::with_max_entries(WATCHED_FILES, 0);

/// What `identify` has found.
#[map]
pub static IDENTITY: Array<FileId> = Array::with_max_entries(1, 0);

// Path calls that have begun, as the records they will be, by thread. Allocated in advance: kernels before 6.1 warn of
// programs that allocate, and nothing can fail here but for more than so many threads within calls at once.

/// Records of ordinary length.
#[map]
pub static INFLIGHT: HashMap<u64, [u8; INFLIGHT_SMALL]> = HashMap::with_max_entries(4096, 0);

/// Longer ones.
#[map]
pub static INFLIGHT_LONG: HashMap<u64, [u8; RECORD_BYTES]> = HashMap::with_max_entries(128, 0);

/// Where threads that are about to change an extended attribute were given leave to write: the mount (`struct vfsmount *`).
#[map]
pub static MOUNTS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

// What is told once. Where there is no room the oldest goes, which is then told a second time.

/// Open files that were written to, by `struct file *`.
#[map]
pub static FILES: LruHashMap<u64, OpenFile> = LruHashMap::with_max_entries(16384, 0);

/// Who was told to have written to them.
#[map]
pub static WRITERS: LruHashMap<Writer, u8> = LruHashMap::with_max_entries(16384, 0);

/// Which files were told to be mapped, to be executed, and by whom.
#[map]
pub static MAPPINGS: LruHashMap<Mapping, u8> = LruHashMap::with_max_entries(16384, 0);

/// Processes whose exit was reported: two threads that end at once may both see that none is left.
#[map]
pub static EXITED: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

/// Events whose repeats are counted.
#[map]
pub static REPEATS: HashMap<RepeatKey, Repeated> = HashMap::with_max_entries(4096, 0);

/// Whose rate limit holds for a control group, both by kernfs id: its container's. For those that aren't here, their own.
#[map]
pub static RATE_OF: HashMap<u64, u64> = HashMap::with_max_entries(16384, 0);

/// How fast control groups make events, by kernfs id, where that is limited.
#[map]
pub static RATES: HashMap<u64, Rate> = HashMap::with_max_entries(16384, 0);

/// Where records are built; see `scratch`.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(crate::scratch::SLOTS, 0);
