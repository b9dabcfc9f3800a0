//! A process has replaced its program.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use knark_abi::{
    ANCESTORS, ARGS_BYTES, ARGS_CHUNK, ARGS_INLINE, Ancestor, ArgsBody, ExecBody, Header, Inode, kind, mark, scope as conditions,
    walk as found,
};

use crate::{
    file::{self, Place},
    head,
    kernel::{self, config, field, offset, read},
    maps::{EXES, TGIDS},
    record::{self, Out},
    scope,
    scratch::{self, Scratch},
    walk::{Walk, knark_walk},
};

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
///
/// The new program's memory, name and credentials are in place; none of its instructions has run.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let by_exe = config!(scope) & conditions::EXE != 0;
    // what costs most comes last, unless the scope hangs on it
    let admitted = if by_exe { None } else { scope::admit() };
    if !by_exe && admitted.is_none() {
        return 0;
    }
    // SAFETY: the scratch memory is this program's own.
    let work = |s, number| unsafe { exec(s, number, admitted, ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2)) };
    if scratch::with(work).is_none() {
        if by_exe {
            record::no_room(kind::SCOPE);
        } else {
            record::seen(kind::EXEC);
            record::no_room(kind::EXEC);
        }
    }
    0
}

/// `admitted` is None if that hangs on the exe.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn exec(s: *mut Scratch, number: u32, admitted: Option<u8>, task: u64, old_tid: u32, bprm: u64) -> Option<()> {
    // SAFETY: by this function's contract.
    unsafe {
        let w = &raw mut (*s).walk;
        let file = field!(bprm, bprm_file)?;
        let exe = file::place(file + offset!(file_f_path))?;
        if let Some(verdict) = admitted {
            record::seen(kind::EXEC);
            begin(s, number, task, verdict);
        }
        let mut exe_at = (0, 0);
        // One loop around one body: the walk is in the program once.
        for i in 0..2u8 {
            let place = if i == 0 { Some(exe) } else { file::working_directory(task) };
            let Some(Place { mnt, dentry }) = place else { break };
            knark_walk(number, task, mnt, dentry);
            if i == 0 && admitted.is_none() {
                remember(s);
                let verdict = scope::admit()?;
                record::seen(kind::EXEC);
                begin(s, number, task, verdict);
            }
            let out = &raw mut (*s).out;
            let body = Out::at::<ExecBody>(out);
            if i == 0 {
                exe_at = file::inode(Out::head(out), &raw mut (*body).inode, dentry).unwrap_or((0, 0));
                (*body).exe_flags = (*w).flags;
                (*body).exe_len = Out::walked(out, w);
                (*body).filename_len = Out::kernel_string(out, field!(bprm, bprm_filename).unwrap_or(0));
            } else {
                (*body).cwd_flags = (*w).flags;
                (*body).cwd_len = Out::walked(out, w);
            }
        }
        let out = &raw mut (*s).out;
        let body = Out::at::<ExecBody>(out);
        (*body).old_tid = old_tid;
        let anonymous = (*body).exe_flags & found::ANON != 0;
        (*Out::head(out)).marks |= file::origin(exe_at.0, exe_at.1, anonymous);
        first_arguments(out, body);
        Out::emit(out, kind::EXEC, record::QUIET);
    }
    Some(())
}

/// The header, the rest of the arguments (as records of their own), and the ancestors.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn begin(s: *mut Scratch, number: u32, task: u64, verdict: u8) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        head::fill(head, kind::EXEC_ARGS, 0, verdict);
        let mm = field!(task, task_mm).unwrap_or(0);
        let start = field!(mm, mm_arg_start).unwrap_or(0);
        let total = field!(mm, mm_arg_end).unwrap_or(0).saturating_sub(start);
        let mut marks = if total > ARGS_BYTES as u64 { mark::ARGS_CUT } else { 0 };
        let before = more_arguments(number, start, total, &mut marks);
        (*head).kind = kind::EXEC;
        (*head).marks |= marks;
        let body = Out::body::<ExecBody>(out);
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        (*body).args_total = total;
        (*body).args_before = before;
        (*body).args_len = 0;
        (*body).exe_len = 0;
        (*body).filename_len = 0;
        (*body).cwd_len = 0;
        (*body).exe_flags = found::NONE;
        (*body).cwd_flags = found::NONE;
        ancestors(out, number, body, task);
    }
}

/// Emits what the exec's own record has no room for, before it: so that it can say whether all of it is there. The header
/// must have been filled in.
#[inline(always)]
fn more_arguments(number: u32, start: u64, total: u64, marks: &mut u32) -> u32 {
    const CHUNKS: u64 = (ARGS_BYTES as u64).div_ceil(ARGS_CHUNK as u64);
    let mut emitted = 0;
    for i in 0..CHUNKS {
        let offset = ARGS_INLINE as u64 + i * ARGS_CHUNK as u64;
        if offset >= total || offset >= ARGS_BYTES as u64 {
            break;
        }
        let len = knark_arguments(number, start, offset, total);
        if len == 0 {
            *marks |= mark::ARGS_HOLE;
        }
        emitted += len;
    }
    emitted
}

/// Emits one continuation; gives its length, 0 if it is lost or could not be read.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_arguments(number: u32, start: u64, offset: u64, total: u64) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    let end = if total > ARGS_BYTES as u64 { ARGS_BYTES as u64 } else { total };
    let len = end - offset;
    let len = if len > ARGS_CHUNK as u64 { ARGS_CHUNK as u64 } else { len };
    // SAFETY: `s` is the caller's own scratch memory; the buffer holds header, body and a chunk.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::body::<ArgsBody>(out);
        let at = Out::bytes(out).add(size_of::<Header>() + size_of::<ArgsBody>());
        record::seen(kind::EXEC_ARGS);
        let read = kernel::copy_user(at, len as u32, start + offset);
        (*body).offset = offset as u32;
        (*body).len = if read { len as u32 } else { 0 };
        if read {
            Out::set_len(out, Out::len(out) + len);
        }
        if Out::emit(out, kind::EXEC_ARGS, record::QUIET) && read { len as u32 } else { 0 }
    }
}

/// # Safety
/// The pointers must be valid.
#[inline(always)]
unsafe fn first_arguments(out: *mut Out, body: *mut ExecBody) {
    // SAFETY: by this function's contract.
    unsafe {
        let mm = field!(kernel::current(), task_mm).unwrap_or(0);
        let start = field!(mm, mm_arg_start).unwrap_or(0);
        let len = (*body).args_total;
        let len = if len > ARGS_INLINE as u64 { ARGS_INLINE as u64 } else { len };
        if Out::user_bytes(out, start, len as u32) {
            (*body).args_len = len as u32;
        } else {
            (*Out::head(out)).marks |= mark::ARGS_HOLE;
        }
    }
}

/// Appends the ancestors by `real_parent`, nearest first.
///
/// # Safety
/// The pointers must be valid.
#[inline(always)]
unsafe fn ancestors(out: *mut Out, number: u32, body: *mut ExecBody, task: u64) {
    let mut next = parent(task);
    let mut n = 0;
    for _ in 0..ANCESTORS {
        if next == 0 {
            break;
        }
        next = knark_ancestor(number, next);
        n += 1;
    }
    // SAFETY: by this function's contract.
    unsafe {
        (*body).ancestors = n;
        if next != 0 {
            (*Out::head(out)).marks |= mark::MORE_ANCESTORS;
        }
    }
}

/// The leader of the parent's thread group; 0 if that is the idle task, which is its own parent.
#[inline(always)]
fn parent(task: u64) -> u64 {
    let leader = field!(field!(task, task_real_parent).unwrap_or(0), task_group_leader).unwrap_or(0);
    if field!(leader, task_tgid as u32).unwrap_or(0) == 0 { 0 } else { leader }
}

/// Appends one ancestor, a leader of its thread group; gives the next.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_ancestor(number: u32, leader: u64) -> u64 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let to = Out::next::<Ancestor>(&raw mut (*s).out);
        (*to).start_ns = field!(leader, task_start_boottime).unwrap_or(0);
        (*to).tgid = field!(leader, task_tgid as u32).unwrap_or(0);
        (*to).pad = 0;
        (*to).comm = read(leader + offset!(task_comm)).unwrap_or([0; 16]);
    }
    parent(leader)
}

/// Notes whether this process runs one of the wanted exes.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn remember(s: *mut Scratch) {
    const EXE: u8 = conditions::EXE as u8;
    // SAFETY: by this function's contract; a byte of `len` is at most the key's size.
    let wanted = unsafe {
        let (from, len) = Walk::path(&raw const (*s).walk);
        let key = &raw mut (*s).key;
        (*key) = [0; 256];
        kernel::copy(key.cast(), (len & 0xff) as u32, from);
        len < 256 && EXES.get(&*key).is_some()
    };
    let (tgid, _) = kernel::ids();
    // SAFETY: one byte.
    let old = unsafe { TGIDS.get(tgid).copied() }.unwrap_or(0);
    let new = if wanted { old | EXE } else { old & !EXE };
    if new == old {
        return;
    }
    if new == 0 {
        let _ = TGIDS.remove(tgid);
    } else if TGIDS.insert(tgid, new, 0).is_err() {
        record::no_room(kind::SCOPE);
    }
}
