//! The offsets that the programs need, out of the kernel's BTF.

use knark_abi::Offsets;

use super::btf::{Btf, Error};

/// Looks all of them up.
#[expect(clippy::too_many_lines, reason = "a line for each")]
pub(super) fn of(btf: &Btf) -> Result<Offsets, Error> {
    // the programs read these together
    let link = (
        btf.offset("dentry", "d_parent")?,
        btf.offset("dentry", "d_name")?,
        btf.offset("qstr", "len")?,
        btf.offset("qstr", "name")?,
    );
    if (link.1, link.2, link.3) != (link.0 + 8, 4, 8) {
        return Err(Error::Layout("dentry.d_name"));
    }
    if btf.offset("path", "dentry")? != btf.offset("path", "mnt")? + 8 {
        return Err(Error::Layout("path"));
    }
    // so do those that number users
    let extent = ["first", "lower_first", "count"].map(|member| btf.offset("uid_gid_extent", member));
    if !matches!(extent, [Ok(0), Ok(4), Ok(8)]) || btf.size_of("uid_gid_extent")? != 12 {
        return Err(Error::Layout("uid_gid_extent"));
    }
    let (regs_args, regs_nr) = registers(btf)?;
    Ok(Offsets {
        task_tgid: btf.offset("task_struct", "tgid")?,
        task_pid: btf.offset("task_struct", "pid")?,
        task_files: btf.offset("task_struct", "files")?,
        task_fs: btf.offset("task_struct", "fs")?,
        task_mm: btf.offset("task_struct", "mm")?,
        task_signal: btf.offset("task_struct", "signal")?,
        task_group_leader: btf.offset("task_struct", "group_leader")?,
        task_real_parent: btf.offset("task_struct", "real_parent")?,
        // before 5.5 it was called real_start_time
        task_start_boottime: btf
            .offset("task_struct", "start_boottime")
            .or_else(|_| btf.offset("task_struct", "real_start_time"))?,
        task_self_exec_id: btf.offset("task_struct", "self_exec_id")?,
        task_comm: btf.offset("task_struct", "comm")?,
        task_exit_code: btf.offset("task_struct", "exit_code")?,
        task_cred: btf.offset("task_struct", "cred")?,
        cred_euid: btf.offset("cred", "euid.val")?,
        cred_egid: btf.offset("cred", "egid.val")?,
        task_cgroups: btf.offset("task_struct", "cgroups")?,
        task_stack: btf.offset("task_struct", "stack")?,
        files_count: btf.offset("files_struct", "count.counter")?,
        files_fdt: btf.offset("files_struct", "fdt")?,
        fdt_fd: btf.offset("fdtable", "fd")?,
        fdt_max_fds: btf.offset("fdtable", "max_fds")?,
        file_f_path: btf.offset("file", "f_path")?,
        file_f_mode: btf.offset("file", "f_mode")?,
        path_mnt: btf.offset("path", "mnt")?,
        path_dentry: btf.offset("path", "dentry")?,
        fs_root: btf.offset("fs_struct", "root")?,
        fs_pwd: btf.offset("fs_struct", "pwd")?,
        dentry_d_parent: link.0,
        dentry_d_inode: btf.offset("dentry", "d_inode")?,
        dentry_d_hash_pprev: btf.offset("dentry", "d_hash.pprev")?,
        vfsmount_mnt_root: btf.offset("vfsmount", "mnt_root")?,
        mount_mnt: btf.offset("mount", "mnt")?,
        mount_mnt_parent: btf.offset("mount", "mnt_parent")?,
        mount_mnt_mountpoint: btf.offset("mount", "mnt_mountpoint")?,
        mount_mnt_ns: btf.offset("mount", "mnt_ns")?,
        inode_i_ino: btf.offset("inode", "i_ino")?,
        inode_i_mode: btf.offset("inode", "i_mode")?,
        inode_i_uid: btf.offset("inode", "i_uid.val")?,
        inode_i_gid: btf.offset("inode", "i_gid.val")?,
        inode_i_size: btf.offset("inode", "i_size")?,
        inode_i_sb: btf.offset("inode", "i_sb")?,
        inode_sizeof: btf.size_of("inode")?,
        sb_s_dev: btf.offset("super_block", "s_dev")?,
        sb_s_magic: btf.offset("super_block", "s_magic")?,
        mm_arg_start: btf.offset("mm_struct", "arg_start")?,
        mm_arg_end: btf.offset("mm_struct", "arg_end")?,
        bprm_file: btf.offset("linux_binprm", "file")?,
        bprm_filename: btf.offset("linux_binprm", "filename")?,
        signal_live: btf.offset("signal_struct", "live.counter")?,
        signal_flags: btf.offset("signal_struct", "flags")?,
        signal_group_exit_code: btf.offset("signal_struct", "group_exit_code")?,
        cssset_subsys: btf.offset("css_set", "subsys")?,
        css_cgroup: btf.offset("cgroup_subsys_state", "cgroup")?,
        css_parent: btf.offset("cgroup_subsys_state", "parent")?,
        cgroup_self: btf.offset("cgroup", "self")?,
        cgroup_kn: btf.offset("cgroup", "kn")?,
        cgroup_root: btf.offset("cgroup", "root")?,
        cgroup_root_hierarchy_id: btf.offset("cgroup_root", "hierarchy_id")?,
        kn_id: btf.offset("kernfs_node", "id")?,
        regs_args,
        regs_nr,
        task_flags: btf.offset("task_struct", "flags")?,
        task_compat: btf.offset("task_struct", COMPAT.0)?,
        filename_name: btf.offset("filename", "name")?,
        openflags_open_flag: btf.offset("open_flags", "open_flag")?,
        openflags_mode: btf.offset("open_flags", "mode")?,
        mm_exe_file: btf.offset("mm_struct", "exe_file")?,
        signal_pids_tgid: btf.offset("signal_struct", "pids")? + 8 * btf.enumerator("pid_type", "PIDTYPE_TGID")?,
        pid_level: btf.offset("pid", "level")?,
        pid_numbers: btf.offset("pid", "numbers")?,
        upid_nr: btf.offset("upid", "nr")?,
        upid_sizeof: btf.size_of("upid")?,
        cred_user_ns: btf.offset("cred", "user_ns")?,
        userns_level: btf.offset("user_namespace", "level")?,
        userns_uid_map: btf.offset("user_namespace", "uid_map")?,
        userns_gid_map: btf.offset("user_namespace", "gid_map")?,
        idmap_nr_extents: btf.offset("uid_gid_map", "nr_extents")?,
        idmap_extent: btf.offset("uid_gid_map", "extent")?,
        idmap_reverse: btf.offset("uid_gid_map", "reverse")?,
        inode_i_generation: btf.offset("inode", "i_generation")?,
        file_f_inode: btf.offset("file", "f_inode")?,
        // one time until 6.11, whose name began with two underscores from 6.7 on
        inode_ctime_sec: any(btf, "inode", ["i_ctime.tv_sec", "__i_ctime.tv_sec", "i_ctime_sec"])?,
        inode_ctime_nsec: any(btf, "inode", ["i_ctime.tv_nsec", "__i_ctime.tv_nsec", "i_ctime_nsec"])?,
        task_personality: btf.offset("task_struct", "personality")?,
        vma_vm_file: btf.offset("vm_area_struct", "vm_file")?,
        vma_vm_flags: btf.offset("vm_area_struct", "vm_flags")?,
        // since 6.7
        backing_user_path: btf.offset("backing_file", "user_path").unwrap_or(0),
    })
}

/// The first of these members that there is.
fn any<const N: usize>(btf: &Btf, of: &str, members: [&str; N]) -> Result<u32, Error> {
    members.iter().map(|member| btf.offset(of, member)).reduce(Result::or).unwrap_or(Err(Error::Layout("nothing")))
}

/// The bit of `Offsets::task_compat` that a task in a 32-bit call has.
pub(super) const fn compat() -> u32 {
    COMPAT.1
}

/// `TS_COMPAT`
#[cfg(target_arch = "x86_64")]
const COMPAT: (&str, u32) = ("thread_info.status", 1 << 1);
/// `TIF_32BIT`
#[cfg(target_arch = "aarch64")]
const COMPAT: (&str, u32) = ("thread_info.flags", 1 << 22);

/// Where a system call's arguments and its number lie in `struct pt_regs`; they stay there until it returns.
#[cfg(target_arch = "x86_64")]
fn registers(btf: &Btf) -> Result<([u32; 6], u32), Error> {
    let at = |name| btf.offset("pt_regs", name);
    Ok(([at("di")?, at("si")?, at("dx")?, at("r10")?, at("r8")?, at("r9")?], at("orig_ax")?))
}

/// Where a system call's arguments and its number lie in `struct pt_regs`; the first register holds the result later on,
/// so the first argument is taken from its copy.
#[cfg(target_arch = "aarch64")]
fn registers(btf: &Btf) -> Result<([u32; 6], u32), Error> {
    let regs = btf.offset("pt_regs", "regs")?;
    let first = btf.offset("pt_regs", "orig_x0")?;
    Ok(([first, regs + 8, regs + 16, regs + 24, regs + 32, regs + 40], btf.offset("pt_regs", "syscallno")?))
}
