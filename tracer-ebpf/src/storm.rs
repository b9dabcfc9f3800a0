//! File events that aren't handed over one by one: repeats, which are counted, and those beyond the rate of their container, which
//! are lost. Where neither is asked for, the verifier removes all of this.

use aya_ebpf::maps::HashMap;
use knark_abi::{
    BURST_NS, Header, NUMBERS, OTHERS, Op, OpenBody, PathBody, REPEAT_BYTES, Rate, RepeatKey, Repeated, Repeats, WINDOW_NS,
    feature, kind,
};

use crate::{
    file,
    kernel::{self, config, constant, field, has, offset},
    maps::{RATE_OF, RATES, REPEATS},
    record::{self, Out},
    scratch::{self, Scratch},
};

static ARGUMENTS: [u8; NUMBERS] = Op::ARGUMENTS;

/// `BPF_NOEXIST`
const NEW: u64 = 1;

/// Whether the record in that scratch memory, of an open or a path call, is not to be handed over. It has been counted then.
///
/// # Safety
/// `s` must be the scratch memory of that number, and the record complete but for its length.
#[inline(always)]
pub unsafe fn holds_back(s: *mut Scratch, number: u32, kind: u8) -> bool {
    // When no events are wanted any more, those that calls under way still make are the last of their kind.
    if has(feature::AGGREGATE) && !kernel::stopped() && knark_is_repeat(number) != 0 {
        record::count(kind, |c| &raw mut c.aggregated, 1);
        return true;
    }
    // SAFETY: by this function's contract.
    unsafe { is_too_much(Out::head(&raw mut (*s).out), kind) }
}

/// Whether a record is beyond the rate of its container, or outside of containers of its control group. It has been counted then.
///
/// # Safety
/// `head` must be valid.
#[inline(always)]
pub unsafe fn is_too_much(head: *const Header, kind: u8) -> bool {
    let event_ns = config!(event_ns);
    // SAFETY: by this function's contract.
    if event_ns == 0 || unsafe { is_within_rate((*head).cgroup, (*head).boot_ns, event_ns) } {
        return false;
    }
    record::count(kind, |c| &raw mut c.lost_rate, 1);
    true
}

/// Each event moves the time when all are made up for; one that would move it too far into the future comes too early. CPUs that do
/// this at once may let through an event more each: kernels before 5.12 have no atomic operation with a result.
#[inline(always)]
fn is_within_rate(cgroup: u64, now: u64, event_ns: u64) -> bool {
    // SAFETY: one word; a concurrent change gives the old or the new value.
    let cgroup = unsafe { RATE_OF.get(cgroup).copied() }.unwrap_or(cgroup);
    let rate = RATES.get_ptr_mut(cgroup).or_else(|| {
        let _ = RATES.insert(cgroup, Rate { due_ns: now, lost: 0 }, NEW);
        RATES.get_ptr_mut(cgroup).or_else(|| RATES.get_ptr_mut(OTHERS))
    });
    let Some(rate) = rate else { return true };
    // SAFETY: a map's value, made of aligned integers; other CPUs may change them at any time.
    unsafe {
        let due_ns = &raw mut (*rate).due_ns;
        let mut due = due_ns.read_volatile();
        if due < now {
            due_ns.write_volatile(now);
            due = now;
        }
        if due - now + event_ns > BURST_NS {
            kernel::add(&raw mut (*rate).lost, 1);
            return false;
        }
        kernel::add(due_ns, event_ns);
    }
    true
}

/// Whether an event like the one in that scratch memory has been reported in this window: then it is counted with that, and this
/// gives 1. A record that is too long for the map, or finds no room there, is no repeat.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_is_repeat(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        if !describe(s) {
            return 0;
        }
        let now = (*Out::head(&raw mut (*s).out)).boot_ns;
        let key = &raw const (*s).repeat;
        if let Some(repeated) = find(key) {
            count(repeated, now);
            return 1;
        }
        let out = &raw mut (*s).out;
        (*s).repeated = Repeated { head: *Out::head(out), repeats: Repeats { count: 0, first_ns: 0, last_ns: 0 } };
        (*s).repeated.head.len = Out::len(out) as u32;
        if insert(key, &raw const (*s).repeated) {
            return 0;
        }
        // there is no room, or another CPU was faster
        match find(key) {
            Some(repeated) => {
                count(repeated, now);
                1
            }
            None => 0,
        }
    }
}

/// Makes the key. False if the record is too long.
///
/// # Safety
/// `s` must be valid, as a map's value is, and hold a record of an open or a path call.
#[inline(always)]
unsafe fn describe(s: *mut Scratch) -> bool {
    // SAFETY: by this function's contract; the copy fits.
    unsafe {
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        let key = &raw mut (*s).repeat;
        let len = Out::len(out).wrapping_sub(size_of::<Header>() as u64);
        if len > REPEAT_BYTES as u64 {
            return false;
        }
        (*key).window = (*head).boot_ns / WINDOW_NS;
        (*key).cgroup = (*head).cgroup;
        (*key).marks = (*head).marks;
        (*key).uid = (*head).uid;
        (*key).gid = (*head).gid;
        (*key).ns_uid = (*head).ns_uid;
        (*key).ns_gid = (*head).ns_gid;
        (*key).kind = (*head).kind;
        (*key).op = (*head).op;
        (*key).pad = [0; 2];
        match if has(feature::BY_PROCESS) { None } else { exe() } {
            Some([inode, device]) => {
                (*key).who = [inode, device, 0];
                (*key).comm = [0; 16];
            }
            None => {
                (*key).who = [(*head).start_ns, u64::from((*head).tgid), (*head).exec_id];
                (*key).comm = (*head).comm;
            }
        }
        (*key).said = [0; REPEAT_BYTES / 8];
        let said = (&raw mut (*key).said).cast::<u8>();
        if !kernel::copy(said, len as u32, Out::at::<u8>(out) as u64) {
            return false;
        }
        if (*head).kind == kind::OPEN {
            let body = said.cast::<OpenBody>();
            if (*body).result > 0 {
                (*body).result = 0;
            }
            (*body).inode.size = 0;
        } else {
            let body = said.cast::<PathBody>();
            (*body).enter_ns = 0;
            (*body).inode.size = 0;
            (*body).note = 0;
            let call = kernel::call_of((*head).op);
            let arguments = constant(&ARGUMENTS[(*head).op as usize & (NUMBERS - 1)]);
            let args = (&raw mut (*body).args).cast::<u64>();
            for index in 0..6 {
                if index >= arguments || index == call.first_name || index == call.second_name || index == call.xattr {
                    args.add(index as usize).write_volatile(0);
                }
            }
        }
    }
    true
}

/// The program of the current process, by inode and device.
#[inline(always)]
fn exe() -> Option<[u64; 2]> {
    let file = field!(field!(kernel::current(), task_mm)?, mm_exe_file)?;
    let inode = field!(file::place(file + offset!(file_f_path))?.dentry, dentry_d_inode)?;
    let device = field!(field!(inode, inode_i_sb)?, sb_s_dev as u32)?;
    Some([field!(inode, inode_i_ino)?, u64::from(device)])
}

/// # Safety
/// `repeated` must be a value of the map.
#[inline(always)]
unsafe fn count(repeated: *mut Repeated, now: u64) {
    // SAFETY: by this function's contract; aligned integers, which other CPUs may change at any time.
    unsafe {
        let repeats = &raw mut (*repeated).repeats;
        kernel::add(&raw mut (*repeats).count, 1);
        (&raw mut (*repeats).last_ns).write_volatile(now);
        if (&raw const (*repeats).first_ns).read_volatile() == 0 {
            (&raw mut (*repeats).first_ns).write_volatile(now);
        }
    }
}

// aya's map takes keys by reference to what may be copied to the stack, which has no room.

/// # Safety
/// `key` must be valid.
#[inline(always)]
unsafe fn find(key: *const RepeatKey) -> Option<*mut Repeated> {
    // SAFETY: by this function's contract.
    let value = unsafe { aya_ebpf::helpers::generated::bpf_map_lookup_elem(raw(), key.cast()) };
    if value.is_null() { None } else { Some(value.cast()) }
}

/// # Safety
/// Both must be valid.
#[inline(always)]
unsafe fn insert(key: *const RepeatKey, value: *const Repeated) -> bool {
    // SAFETY: by this function's contract.
    unsafe { aya_ebpf::helpers::generated::bpf_map_update_elem(raw(), key.cast(), value.cast(), NEW) == 0 }
}

#[inline(always)]
fn raw() -> *mut core::ffi::c_void {
    const { assert!(size_of::<HashMap<RepeatKey, Repeated>>() > 0) };
    (&raw const REPEATS).cast_mut().cast()
}
