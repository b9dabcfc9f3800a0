//! Where in a function's machine code a probe goes. On x86-64 only at instructions that the kernel emulates (a push, a jump, a direct call): others
//! are stepped out of line, which costs twenty times as much. Decoded, not searched for: bytes may look like anything.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The architecture of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

/// A prologue isn't longer than so many instructions.
const PROLOGUE: usize = 12;
/// Nothing comes between a call and the look at its error but so many instructions that do nothing.
const PADDING: usize = 2;

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Of the function at this address.
    To(u64),
    /// Of a method of an interface.
    Indirect,
}

/// How many words a call returns before its error, each in a register of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// An interface, or a pointer and a truth value.
    Two,
    /// A slice.
    Three,
}

/// Where, in bytes from the function's front, its arguments are all in their registers, and where it comes by once each time that it is
/// called: before, it may be begun again after its stack has grown.
pub fn arguments(machine: Machine, code: &[u8], address: u64) -> Option<usize> {
    match machine {
        Machine::Amd64 => {
            let pushes = |one: &Instruction| one.mnemonic() == Mnemonic::Push && one.op0_register() == Register::RBP;
            let prologue = [Mnemonic::Lea, Mnemonic::Cmp, Mnemonic::Jbe, Mnemonic::Sub, Mnemonic::Jb, Mnemonic::Nop];
            let mut before = instructions(code, address).take(PROLOGUE);
            let at = before.find(|one| pushes(one) || !prologue.contains(&one.mnemonic()))?;
            pushes(&at).then(|| offset(at.ip(), address))?
        }
        Machine::Arm64 => {
            // b.ls to where the stack is made to grow
            let grows = words(code).take(PROLOGUE).position(|word| word & 0xff00_001f == 0x5400_0009);
            Some(grows.map_or(0, |at| (at + 1) * 4)).filter(|at| *at < code.len())
        }
    }
}

/// Where, in bytes from the function's front, what the call returned is in its registers: at the conditional jump on the error that
/// is its last result, after so many words.
pub fn results(machine: Machine, code: &[u8], address: u64, call: Call, error: Words) -> Option<usize> {
    match machine {
        Machine::Amd64 => {
            let register = match error {
                Words::Two => Register::RCX,
                Words::Three => Register::RDI,
            };
            let all = || instructions(code, address);
            let after = |at: usize| {
                let mut next = all().skip(at + 1).skip_while(is_nop).take(2);
                let (test, jump) = (next.next()?, next.next()?);
                let of_error = test.mnemonic() == Mnemonic::Test && [test.op0_register(), test.op1_register()] == [register; 2];
                (of_error && matches!(jump.mnemonic(), Mnemonic::Je | Mnemonic::Jne)).then(|| offset(jump.ip(), address))?
            };
            let calls = all().enumerate().filter(|(_, one)| match call {
                Call::To(target) => one.code() == Code::Call_rel32_64 && one.near_branch_target() == target,
                Call::Indirect => one.code() == Code::Call_rm64,
            });
            calls.map(|(at, _)| at).collect::<Vec<_>>().into_iter().find_map(after)
        }
        Machine::Arm64 => {
            let all: Vec<u32> = words(code).collect();
            let is_call = |at: usize, word: u32| match call {
                Call::To(target) => word >> 26 == 0b10_0101 && branch(address, at, word) == Some(target),
                Call::Indirect => word & 0xffff_fc1f == 0xd63f_0000,
            };
            let register = match error {
                Words::Two => 2,
                Words::Three => 3,
            };
            // cbz or cbnz
            let on_error = |word: u32| word & 0xfe00_001f == 0xb400_0000 | register;
            let nop = |word: &&u32| **word == 0xd503_201f;
            all.iter().enumerate().filter(|(at, word)| is_call(*at, **word)).find_map(|(at, _)| {
                let rest = all.get(at + 1..)?;
                let nops = rest.iter().take(PADDING).take_while(nop).count();
                on_error(*rest.get(nops)?).then_some((at + 1 + nops) * 4)
            })
        }
    }
}

/// Where, in bytes from the function's front, what a call of an interface's method returned is in its registers still, and the
/// next function is called, at this address: between the calls it is put aside, and nothing else is done.
pub fn passed_by(machine: Machine, code: &[u8], address: u64, next: u64) -> Option<usize> {
    match machine {
        Machine::Amd64 => {
            let puts_aside = |one: &Instruction| {
                is_nop(one)
                    || one.mnemonic() == Mnemonic::Mov && one.op0_kind() == OpKind::Memory && one.memory_base() == Register::RSP
            };
            let mut returned = false;
            for one in instructions(code, address) {
                if returned && one.code() == Code::Call_rel32_64 && one.near_branch_target() == next {
                    return offset(one.ip(), address);
                }
                returned = one.code() == Code::Call_rm64 || returned && puts_aside(&one);
            }
            None
        }
        Machine::Arm64 => {
            const SP: u32 = 31 << 5;
            // str, strb and stp of general registers, at an offset from sp
            let puts_aside = |word: u32| {
                let stores = matches!(word & 0xffc0_0000, 0xf900_0000 | 0x3900_0000 | 0xa900_0000);
                word == 0xd503_201f || stores && word & SP == SP
            };
            let mut returned = false;
            for (at, word) in words(code).enumerate() {
                if returned && word >> 26 == 0b10_0101 && branch(address, at, word) == Some(next) {
                    return Some(at * 4);
                }
                returned = word & 0xffff_fc1f == 0xd63f_0000 || returned && puts_aside(word);
            }
            None
        }
    }
}

fn instructions(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || {
        let next = decoder.can_decode().then(|| decoder.decode())?;
        (!next.is_invalid()).then_some(next)
    })
}

fn is_nop(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Nop
}

fn offset(ip: u64, address: u64) -> Option<usize> {
    usize::try_from(ip.checked_sub(address)?).ok()
}

fn words(code: &[u8]) -> impl Iterator<Item = u32> {
    code.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Where the branch at a place leads: a signed number of words, in 26 bits.
fn branch(address: u64, at: usize, word: u32) -> Option<u64> {
    let words = (word << 6).cast_signed() >> 6;
    address.checked_add(at as u64 * 4)?.checked_add_signed(i64::from(words) * 4)
}

#[cfg(test)]
mod tests {
    use super::{Call::*, Machine::*, Words::*, *};

    /// `lea r12, [rsp-0x158]; cmp r12, [r14+0x10]; jbe; push rbp; mov rbp, rsp`, then a call to what lies 0x676 further,
    /// `test rcx, rcx; jne`, and `call rcx; nop; test rcx, rcx; je`.
    const AMD64: &[u8] = &[
        0x4c, 0x8d, 0xa4, 0x24, 0xa8, 0xfe, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0x54, 0x06, 0x00, 0x00, 0x55, 0x48,
        0x89, 0xe5, 0xe8, 0x5b, 0x06, 0x00, 0x00, 0x48, 0x85, 0xc9, 0x0f, 0x85, 0x2d, 0x05, 0x00, 0x00, 0xff, 0xd1, 0x66, 0x0f,
        0x1f, 0x44, 0x00, 0x00, 0x48, 0x85, 0xc9, 0x0f, 0x84, 0xf7, 0x00, 0x00, 0x00, 0xc3,
    ];

    fn arm64(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn arguments_are_there_once_the_frame_is_pushed() {
        assert_eq!(arguments(Amd64, AMD64, 0x1f0_a480), Some(0x12));
        // without a check of the stack
        assert_eq!(arguments(Amd64, &AMD64[0x12..], 0x1000), Some(0));
        // a frame that is never pushed, and what is no code at all
        assert_eq!(arguments(Amd64, &[0x48, 0x8b, 0x00, 0xc3], 0x1000), None);
        assert_eq!(arguments(Amd64, &[0x06, 0x55], 0x1000), None);
        assert_eq!(arguments(Amd64, &[], 0x1000), None);
        // ldr x16, [x28, #16]; cmp sp, x16; b.ls; str x30, [sp, #-48]!
        let code = arm64(&[0xf940_0b90, 0xeb30_63ff, 0x5400_0349, 0xf81d_0ffe]);
        assert_eq!(arguments(Arm64, &code, 0x1000), Some(12));
        assert_eq!(arguments(Arm64, &code[..12], 0x1000), None);
        assert_eq!(arguments(Arm64, &code[12..], 0x1000), Some(0));
    }

    #[test]
    fn results_are_there_at_the_jump_on_the_error() {
        let address = 0x1f0_a480;
        assert_eq!(results(Amd64, AMD64, address, To(address + 0x1b + 0x65b), Two), Some(0x1e));
        assert_eq!(results(Amd64, AMD64, address, Indirect, Two), Some(0x2f));
        assert_eq!(results(Amd64, AMD64, address, To(address), Two), None);
        assert_eq!(results(Amd64, AMD64, address, Indirect, Three), None);
        // another register is looked at
        let mut other = AMD64.to_vec();
        other[0x1d] = 0xc0;
        assert_eq!(results(Amd64, &other, address, To(address + 0x1b + 0x65b), Two), None);
        // test rdi, rdi
        other[0x1d] = 0xff;
        assert_eq!(results(Amd64, &other, address, To(address + 0x1b + 0x65b), Three), Some(0x1e));

        // bl to 0x2000 words before; nop; cbnz x2; blr x3; cbz x2
        let code = arm64(&[0x97ff_e000, 0xd503_201f, 0xb500_0642, 0xd63f_0060, 0xb400_0082]);
        assert_eq!(results(Arm64, &code, 0x10_0000, To(0x10_0000 - 0x8000), Two), Some(8));
        assert_eq!(results(Arm64, &code, 0x10_0000, Indirect, Two), Some(16));
        assert_eq!(results(Arm64, &code, 0x10_0000, To(0x10_0000), Two), None);
        assert_eq!(results(Arm64, &code, 0x10_0000, Indirect, Three), None);
        assert_eq!(results(Arm64, &code[..8], 0x10_0000, To(0x10_0000 - 0x8000), Two), None);
        // bl; cbnz x3
        let code = arm64(&[0x97ff_e000, 0xb500_0643]);
        assert_eq!(results(Arm64, &code, 0x10_0000, To(0x10_0000 - 0x8000), Three), Some(4));
    }

    #[test]
    fn results_are_there_at_the_next_call_if_they_were_only_put_aside() {
        // call rcx; mov [rsp+0x66], bl; mov [rsp+0x140], rax; xchg ax, ax; mov [rsp+0x198], rdi; call to what lies 0x1000 before
        let mut code = vec![0xff, 0xd1, 0x88, 0x5c, 0x24, 0x66, 0x48, 0x89, 0x84, 0x24, 0x40, 0x01, 0x00, 0x00, 0x66, 0x90];
        code.extend([0x48, 0x89, 0xbc, 0x24, 0x98, 0x01, 0x00, 0x00, 0xe8, 0x00, 0xf0, 0xff, 0xff, 0xc3]);
        let (address, next) = (0x1f0_926f, 0x1f0_926f + 29 - 0x1000);
        assert_eq!(passed_by(Amd64, &code, address, next), Some(24));
        assert_eq!(passed_by(Amd64, &code, address, next + 1), None);
        // the same call without another before it
        assert_eq!(passed_by(Amd64, &code[2..], address + 2, next), None);
        // it calls what is in memory
        let memory = [&[0xff, 0x51, 0x18], &code[2..]].concat();
        assert_eq!(passed_by(Amd64, &memory, address - 1, next), Some(25));
        // mov rdi, [rsp+0x198]; and what is put aside through another register
        for (at, byte) in [(17, 0x8b), (19, 0x27)] {
            let mut other = code.clone();
            other[at] = byte;
            assert_eq!(passed_by(Amd64, &other, address, next), None);
        }
        assert_eq!(passed_by(Amd64, &code[..20], address, next), None);

        // blr x3; strb w1, [sp, #86]; str x0, [sp, #288]; stp x2, x3, [sp, #368]; nop; bl to 0x400 words before
        let words = [0xd63f_0060, 0x3901_5be1, 0xf900_93e0, 0xa917_0fe2, 0xd503_201f, 0x97ff_fc00];
        let next = 0x10_0000 + 20 - 0x1000;
        assert_eq!(passed_by(Arm64, &arm64(&words), 0x10_0000, next), Some(20));
        assert_eq!(passed_by(Arm64, &arm64(&words), 0x10_0000, next + 4), None);
        assert_eq!(passed_by(Arm64, &arm64(&words[1..]), 0x10_0004, next), None);
        // ldr x0, [sp, #288]; str x0, [x1, #288]; str x0, [sp, #16]! and ldp x2, x3, [sp, #368]
        for word in [0xf940_93e0, 0xf900_9020, 0xf801_0fe0, 0xa957_0fe2] {
            let mut other = words;
            other[2] = word;
            assert_eq!(passed_by(Arm64, &arm64(&other), 0x10_0000, next), None, "{word:#x}");
        }
    }
}
