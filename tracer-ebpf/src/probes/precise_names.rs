//! Names are made, moved and removed. Where names were asked for, a function of the kernel begins and ends; in between, the
//! security hook is asked about the very directories and entries.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use knark_abi::{Op, effect};

use super::{put, value};
use crate::precise;

macro_rules! probes {
    ($($(#[$doc:meta])* $enter:ident $exit:ident $op:ident $by:ident [$($arg:literal),*] $($index:literal = $value:expr)?;)*) => {
        $(
            $(#[$doc])*
            #[fentry]
            pub fn $enter(ctx: FEntryContext) -> i32 {
                precise::begin(Op::$op, Op::$by, |args| {
                    put(ctx.as_ptr(), args, [$($arg),*]);
                    // SAFETY: `begin` gives room for six arguments.
                    $(unsafe { (*args)[$index] = $value };)?
                });
                0
            }

            $(#[$doc])*
            #[fexit]
            pub fn $exit(ctx: FExitContext) -> i32 {
                const ARGUMENTS: usize = [$($arg),*].len();
                precise::end(Op::$op, value(ctx.as_ptr(), ARGUMENTS) as i32);
                0
            }
        )*
    };
}

// From 7 on, these functions are called filename_unlinkat and so on. Up to 5.14, some are given pointers to the process's memory
// instead of struct filename.
probes! {
    /// match-proto: do_unlinkat(int dfd, struct filename *name)
    unlinkat_enter unlinkat_exit Unlinkat Unlinkat [0, 1];
    /// match-proto: do_rmdir(int dfd, struct filename *name)
    rmdir_enter rmdir_exit Unlinkat Rmdir [0, 1] 2 = effect::REMOVES_DIR as u64;
    /// match-proto: do_renameat2(int olddfd, struct filename *from, int newdfd, struct filename *to, unsigned int flags)
    renameat2_enter renameat2_exit Renameat2 Renameat2 [0, 1, 2, 3, 4];
    /// match-proto: do_linkat(int olddfd, struct filename *old, int newdfd, struct filename *new, int flags)
    linkat_enter linkat_exit Linkat Linkat [0, 1, 2, 3, 4];
    /// match-proto: do_symlinkat(struct filename *from, int newdfd, struct filename *to)
    symlinkat_enter symlinkat_exit Symlinkat Symlinkat [0, 1, 2];
    /// match-proto: do_mkdirat(int dfd, struct filename *name, umode_t mode)
    mkdirat_enter mkdirat_exit Mkdirat Mkdirat [0, 1, 2];
    /// match-proto: do_mknodat(int dfd, struct filename *name, umode_t mode, unsigned int dev)
    mknodat_enter mknodat_exit Mknodat Mknodat [0, 1, 2, 3];
}

macro_rules! found {
    ($($(#[$doc:meta])* $name:ident $effect:ident $two:literal [$($arg:literal),*];)*) => {
        $(
            $(#[$doc])*
            #[fentry]
            pub fn $name(ctx: FEntryContext) -> i32 {
                precise::names(effect::$effect, $two, |args| put(ctx.as_ptr(), args, [$($arg),*]));
                0
            }
        )*
    };
}

found! {
    /// match-proto: security_path_unlink(const struct path *dir, struct dentry *dentry)
    unlink_found UNLINK false [0, 1];
    /// match-proto: security_path_rmdir(const struct path *dir, struct dentry *dentry)
    rmdir_found RMDIR false [0, 1];
    /// match-proto: security_path_rename(const struct path *old_dir, struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
    rename_found RENAME true [0, 1, 2, 3];
    /// match-proto: security_path_link(struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)
    ///
    /// Both names are in one mount.
    link_found LINK true [1, 0, 1, 2];
    /// match-proto: security_path_symlink(const struct path *dir, struct dentry *dentry, const char *old_name)
    symlink_found SYMLINK false [0, 1];
    /// match-proto: security_path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)
    mkdir_found MKDIR false [0, 1];
    /// match-proto: security_path_mknod(const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)
    mknod_found CREATE false [0, 1];
}
