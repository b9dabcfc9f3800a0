//! Whether what is done to a file is wanted: by what it is, then by the path. What can't be told here counts as wanted, and
//! user space looks again.

use aya_ebpf::maps::lpm_trie::Key;
use knark_abi::{WANTED_BYTES, feature, walk as found};

use crate::{
    kernel::{self, config, has},
    maps::WANTED,
    record::Out,
    scratch::{self, Scratch},
    walk::Walk,
};

/// What an effect alone says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It isn't wanted.
    No,
    /// The path decides.
    ByPath,
    /// It is wanted, whatever the path.
    Yes,
}

/// Whether an effect is wanted.
#[inline(always)]
pub fn effect(effect: u8) -> Wanted {
    if !has(feature::WANTED) {
        return Wanted::Yes;
    }
    let bit = 1 << (effect & 31);
    if config!(anywhere) & bit != 0 {
        Wanted::Yes
    } else if config!(somewhere) & bit != 0 {
        Wanted::ByPath
    } else {
        Wanted::No
    }
}

/// Whether an effect is wanted on the path that the walk of that scratch memory has found; 0 if not.
///
/// Global, so that the verifier looks at it once; this goes for all such functions here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_wanted_walked(number: u32, effect: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        if (*s).walk.flags & found::TRUNC != 0 {
            return 1;
        }
        let (from, len) = Walk::path(&raw const (*s).walk);
        u32::from(look_up(s, from, len, effect))
    }
}

/// Whether an effect is wanted on the argument of `len` bytes that lies at `at` in the record; 0 if not. An argument that isn't
/// the path itself, being relative or having empty, `.` or `..` components, can't be told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_wanted_argument(number: u32, at: u32, len: u32, effect: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let from = Out::bytes(&raw mut (*s).out).add((at & 0xff) as usize);
        if *from != b'/' {
            return 1;
        }
        let wanted = look_up(s, from as u64, u64::from(len), effect);
        u32::from(wanted || !is_plain(s))
    }
}

/// # Safety
/// `s` must be valid, as a map's value is; WANTED_BYTES from `from` on are read.
#[inline(always)]
unsafe fn look_up(s: *mut Scratch, from: u64, len: u64, effect: u32) -> bool {
    // SAFETY: by this function's contract; the index is masked. `Key` is `WantedKey` by another name.
    unsafe {
        let key = &raw mut (*s).wanted;
        let path = (&raw mut (*key).path).cast::<u8>();
        if !kernel::copy(path, WANTED_BYTES as u32, from) {
            return true;
        }
        (*key).bits = WANTED_BYTES as u32 * 8;
        if len < WANTED_BYTES as u64 {
            *path.add((len & (WANTED_BYTES as u64 - 1)) as usize) = 0;
            (*key).bits = (len as u32 + 1) * 8;
        }
        match WANTED.get(&*key.cast::<Key<[u8; WANTED_BYTES]>>()) {
            Some(effects) => effects >> (effect & 31) & 1 != 0,
            None => false,
        }
    }
}

/// Whether the absolute path that was looked up has no empty, `.` or `..` component, and no slash at its end. One that is
/// longer than the key may have.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn is_plain(s: *mut Scratch) -> bool {
    // SAFETY: by this function's contract. What came before lies in a map, not in a register: so the verifier knows nothing of
    // it, and to it each turn is like the last one.
    unsafe {
        let path = (&raw const (*s).wanted.path).cast::<u8>();
        let before = &raw mut (*s).before;
        before.write_volatile(0);
        for i in 0..WANTED_BYTES {
            let (byte, bytes) = (path.add(i).read_volatile(), before.read_volatile());
            if byte == b'/' || byte == 0 {
                // since the last slash: nothing, a dot, or two of them
                if bytes & 0xff == 0x2f || bytes & 0xffff == 0x2f2e || bytes & 0xff_ffff == 0x2f_2e2e {
                    return false;
                }
                if byte == 0 {
                    return true;
                }
            }
            before.write_volatile(bytes << 8 | u32::from(byte));
        }
    }
    false
}
