//! Extended attributes are set and removed. What a system call of this architecture does has its tracepoints, and here is added
//! which file it was; what io_uring and 32-bit system calls do begins and ends here.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use knark_abi::Op;

use super::{NONE, put, value};
use crate::{
    attribute,
    kernel::{offset, read},
    precise,
};

/// match-proto: mnt_want_write(struct vfsmount *m)
#[fentry]
pub fn mount_written(ctx: FEntryContext) -> i32 {
    attribute::mount(|| value(ctx.as_ptr(), 0));
    0
}

/// match-proto: mnt_want_write_file(struct file *file)
#[fentry]
pub fn mount_of_file_written(ctx: FEntryContext) -> i32 {
    attribute::mount(|| read(value(ctx.as_ptr(), 0) + offset!(file_f_path) + offset!(path_mnt)).unwrap_or(0));
    0
}

macro_rules! probes {
    ($($(#[$doc:meta])* $enter:ident $exit:ident $op:ident [$($arg:expr),*] $count:literal;)*) => {
        $(
            $(#[$doc])*
            #[fentry]
            pub fn $enter(ctx: FEntryContext) -> i32 {
                attribute::begin(Op::$op, |args| put(ctx.as_ptr(), args, [$($arg),*]));
                0
            }

            $(#[$doc])*
            #[fexit]
            pub fn $exit(ctx: FExitContext) -> i32 {
                precise::end(Op::$op, value(ctx.as_ptr(), $count) as i32);
                0
            }
        )*
    };
}

// The dentry comes first up to 5.11; from then on, whose mount it is does. From 6.2 on access control lists have their own.
probes! {
    /// match-proto: vfs_setxattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name, const void *value, size_t size, int flags)
    setxattr_enter setxattr_exit Fsetxattr [1, 2, NONE, NONE, 5] 6;
    /// match-proto: vfs_setxattr(struct dentry *dentry, const char *name, const void *value, size_t size, int flags)
    old_setxattr_enter old_setxattr_exit Fsetxattr [0, 1, NONE, NONE, 4] 5;
    /// match-proto: vfs_removexattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name)
    removexattr_enter removexattr_exit Fremovexattr [1, 2] 3;
    /// match-proto: vfs_removexattr(struct dentry *dentry, const char *name)
    old_removexattr_enter old_removexattr_exit Fremovexattr [0, 1] 2;
    /// match-proto: vfs_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name, struct posix_acl *kacl)
    set_acl_enter set_acl_exit Fsetxattr [1, 2] 4;
    /// match-proto: vfs_remove_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name)
    remove_acl_enter remove_acl_exit Fremovexattr [1, 2] 3;
}
