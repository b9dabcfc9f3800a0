//! Modes and owners are changed: by chmod and its kin, whichever way the call came and whatever led to the file.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use knark_abi::Op;

use super::{put, value};
use crate::precise;

macro_rules! calls {
    ($($(#[$doc:meta])* $enter:ident $exit:ident $op:ident;)*) => {
        $(
            $(#[$doc])*
            #[fentry]
            pub fn $enter(ctx: FEntryContext) -> i32 {
                precise::begin_call(Op::$op, |args| put(ctx.as_ptr(), args, [0]));
                0
            }

            $(#[$doc])*
            #[fexit]
            pub fn $exit(ctx: FExitContext) -> i32 {
                precise::end(Op::$op, value(ctx.as_ptr(), 1) as i32);
                0
            }
        )*
    };
}

// What these have in common is inlined into some of them on some kernels, so it is no place to watch.
calls! {
    /// match-proto: __x64_sys_chmod(const struct pt_regs *regs)
    call_chmod_enter call_chmod_exit Chmod;
    /// match-proto: __x64_sys_fchmodat(const struct pt_regs *regs)
    call_fchmodat_enter call_fchmodat_exit Fchmodat;
    /// match-proto: __x64_sys_fchmodat2(const struct pt_regs *regs)
    call_fchmodat2_enter call_fchmodat2_exit Fchmodat2;
}

/// match-proto: chmod_common(const struct path *path, umode_t mode)
#[fentry]
pub fn chmod_enter(ctx: FEntryContext) -> i32 {
    precise::begin_found(Op::Fchmod, Op::Fchmod as u8, |args| put(ctx.as_ptr(), args, [0, 1]));
    0
}

/// match-proto: chmod_common(const struct path *path, umode_t mode)
#[fexit]
pub fn chmod_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Fchmod, value(ctx.as_ptr(), 2) as i32);
    0
}

/// match-proto: do_fchownat(int dfd, const char *filename, uid_t user, gid_t group, int flag)
#[fentry]
pub fn fchownat_enter(ctx: FEntryContext) -> i32 {
    precise::begin(Op::Fchownat, Op::Fchownat, |args| put(ctx.as_ptr(), args, [0, 1, 2, 3, 4]));
    0
}

/// match-proto: do_fchownat(int dfd, const char *filename, uid_t user, gid_t group, int flag)
#[fexit]
pub fn fchownat_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Fchownat, value(ctx.as_ptr(), 5) as i32);
    0
}

/// match-proto: chown_common(const struct path *path, uid_t user, gid_t group)
#[fentry]
pub fn chown_enter(ctx: FEntryContext) -> i32 {
    precise::begin_found(Op::Fchown, Op::Fchown as u8, |args| put(ctx.as_ptr(), args, [0, 1, 2]));
    0
}

/// match-proto: chown_common(const struct path *path, uid_t user, gid_t group)
#[fexit]
pub fn chown_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Fchown, value(ctx.as_ptr(), 3) as i32);
    0
}
