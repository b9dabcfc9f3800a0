//! Offsets of members, out of a kernel's BTF.
//!
//! A small reader of our own: it looks into anonymous structs and unions (where 6.18 keeps `file.f_path`), which the
//! loader's doesn't show, and it takes a file from anywhere. Nothing in a file can make it panic or run for long.

use std::{fs, io, ops::Range, path::Path};

use rustc_hash::FxHashMap;

/// Where a kernel describes its own types.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// A kernel's types.
pub struct Btf {
    raw: Vec<u8>,
    /// Where each type begins in `raw`, by its id; 0 is void.
    types: Vec<u32>,
    strings: Range<usize>,
    /// Structs, unions and enums, by kind and name.
    names: FxHashMap<(u8, Box<[u8]>), u32>,
}

/// Why a question has no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no BTF at all.
    #[error("this is not BTF of this machine's byte order")]
    NotBtf,
    /// Something points outside of the data.
    #[error("the data is cut off or damaged")]
    Damaged,
    /// A kind of type that came later than this program.
    #[error("there is a kind of type ({0}) that this version doesn't know")]
    Kind(u32),
    /// The kernel has no such type or member.
    #[error("{0} isn't there")]
    Missing(String),
    /// A type has another layout than what the programs rely on.
    #[error("{0} has another layout than expected")]
    Layout(&'static str),
}

const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const TYPEDEF: u8 = 8;
const POINTER: u8 = 2;
const FUNC: u8 = 12;
const PROTOTYPE: u8 = 13;

/// Anonymous members within anonymous members, and typedefs of typedefs: no kernel comes near.
const DEPTH: u32 = 16;

/// One type's header.
struct Type {
    kind: u8,
    /// Of a struct: members' offsets may carry sizes of bit fields.
    bits: bool,
    count: usize,
    /// A size, or the id of another type.
    extent: u32,
    name: u32,
    /// Where its members begin.
    rest: usize,
}

impl Btf {
    /// The running kernel's.
    pub fn kernel() -> io::Result<Result<Btf, Error>> {
        Self::file(Path::new(KERNEL))
    }

    /// Out of a file.
    pub fn file(path: &Path) -> io::Result<Result<Btf, Error>> {
        Ok(Self::parse(fs::read(path)?))
    }

    /// Reads through it once; looks at no member.
    pub fn parse(raw: Vec<u8>) -> Result<Btf, Error> {
        let number = |at| word(&raw, at).map(|n| n as usize).ok_or(Error::NotBtf);
        if raw.get(..2) != Some(&0xeb9f_u16.to_ne_bytes()) || u32::try_from(raw.len()).is_err() {
            return Err(Error::NotBtf);
        }
        let header = number(4)?;
        let range = |from: usize, len: usize| {
            let start = header.checked_add(from).ok_or(Error::Damaged)?;
            let end = start.checked_add(len).ok_or(Error::Damaged)?;
            if end <= raw.len() { Ok(start..end) } else { Err(Error::Damaged) }
        };
        let types_in = range(number(8)?, number(12)?)?;
        let strings = range(number(16)?, number(20)?)?;
        let mut btf = Btf { raw, types: vec![0], strings, names: FxHashMap::default() };
        let mut at = types_in.start;
        while at < types_in.end {
            let ty = btf.read(at).ok_or(Error::Damaged)?;
            let id = u32::try_from(btf.types.len()).map_err(|_| Error::Damaged)?;
            btf.types.push(u32::try_from(at).map_err(|_| Error::Damaged)?);
            if matches!(ty.kind, STRUCT | UNION | ENUM | TYPEDEF) {
                let name = btf.string(ty.name).ok_or(Error::Damaged)?;
                if !name.is_empty() && (ty.kind != TYPEDEF || name.starts_with(b"btf_trace_")) {
                    let key = (ty.kind, Box::from(name));
                    btf.names.entry(key).or_insert(id);
                }
            }
            // what follows the header of each kind: include/uapi/linux/btf.h
            let more = match ty.kind {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => 12 * ty.count,
                ENUM | 13 => 8 * ty.count,
                2 | 7..=12 | 16 | 18 => 0,
                kind => return Err(Error::Kind(kind.into())),
            };
            at = ty.rest + more;
        }
        if at == types_in.end { Ok(btf) } else { Err(Error::Damaged) }
    }

    /// Where a member lies: `offset("file", "f_path.dentry")`. A dot goes into a struct that lies within; no pointer is
    /// followed.
    pub fn offset(&self, of: &str, path: &str) -> Result<u32, Error> {
        let missing = || Error::Missing(format!("{of}.{path}"));
        let mut id = self.named(STRUCT, of).or_else(|_| self.named(UNION, of))?;
        let mut bits = 0_u32;
        for name in path.split('.') {
            let mut budget = 8_000;
            let (at, ty) = self.member(id, name.as_bytes(), 0, &mut budget).ok_or_else(missing)?;
            bits = bits.checked_add(at).ok_or(Error::Damaged)?;
            id = ty;
        }
        if bits.is_multiple_of(8) { Ok(bits / 8) } else { Err(missing()) }
    }

    /// Whether it has such a member.
    pub fn has(&self, of: &str, path: &str) -> bool {
        self.offset(of, path).is_ok()
    }

    /// A struct's size.
    pub fn size_of(&self, of: &str) -> Result<u32, Error> {
        let id = self.named(STRUCT, of)?;
        self.by_id(id).map(|ty| ty.extent).ok_or(Error::Damaged)
    }

    /// An enumerator's value.
    pub fn enumerator(&self, of: &str, name: &str) -> Result<u32, Error> {
        let ty = self.by_id(self.named(ENUM, of)?).ok_or(Error::Damaged)?;
        (0..ty.count)
            .map(|i| ty.rest + 8 * i)
            .find(|at| word(&self.raw, *at).and_then(|n| self.string(n)) == Some(name.as_bytes()))
            .and_then(|at| word(&self.raw, at + 4))
            .ok_or_else(|| Error::Missing(format!("{of} {name}")))
    }

    /// The id of the type that programs attached to this tracepoint name.
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.named(TYPEDEF, &format!("btf_trace_{name}")).ok()
    }

    /// Those of these functions of the kernel that programs can be attached to, each with its parameters' types: the name of what
    /// a pointer points to, or nothing for what is no pointer to a struct.
    pub fn functions<'n>(&self, names: &[&'n str]) -> FxHashMap<&'n str, Vec<&[u8]>> {
        let mut found = FxHashMap::default();
        for at in self.types.iter().skip(1) {
            if let Some(ty) = self.read(*at as usize).filter(|ty| ty.kind == FUNC)
                && let Some(name) = self.string(ty.name).and_then(|is| names.iter().find(|name| name.as_bytes() == is))
                && let Some(parameters) = self.parameters(ty.extent)
            {
                found.insert(*name, parameters);
            }
        }
        found
    }

    fn parameters(&self, prototype: u32) -> Option<Vec<&[u8]>> {
        let prototype = self.by_id(prototype).filter(|ty| ty.kind == PROTOTYPE)?;
        let types = (0..prototype.count).map(|i| word(&self.raw, prototype.rest + 8 * i + 4));
        types.map(|id| Some(self.pointed_to(id?).unwrap_or(b""))).collect()
    }

    /// The name of the struct that a pointer points to.
    fn pointed_to(&self, id: u32) -> Option<&[u8]> {
        let pointer = self.by_id(self.plain(id)?).filter(|ty| ty.kind == POINTER)?;
        let to = self.by_id(self.plain(pointer.extent)?).filter(|ty| ty.kind == STRUCT)?;
        self.string(to.name)
    }

    fn named(&self, kind: u8, name: &str) -> Result<u32, Error> {
        let key = (kind, Box::from(name.as_bytes()));
        self.names.get(&key).copied().ok_or_else(|| Error::Missing(name.to_owned()))
    }

    /// Offset in bits, and type, of a member, also of one within anonymous ones.
    fn member(&self, id: u32, name: &[u8], depth: u32, budget: &mut u32) -> Option<(u32, u32)> {
        let ty = self.by_id(self.plain(id)?)?;
        if !matches!(ty.kind, STRUCT | UNION) || depth == DEPTH {
            return None;
        }
        for i in 0..ty.count {
            *budget = budget.checked_sub(1)?;
            let at = ty.rest + 12 * i;
            let (its_name, its_type) = (self.string(word(&self.raw, at)?)?, word(&self.raw, at + 4)?);
            let bits = word(&self.raw, at + 8)? & if ty.bits { 0xff_ffff } else { u32::MAX };
            if its_name == name {
                return Some((bits, its_type));
            }
            if its_name.is_empty()
                && let Some((more, found)) = self.member(its_type, name, depth + 1, budget)
            {
                return Some((bits.checked_add(more)?, found));
            }
        }
        None
    }

    /// Without typedefs, qualifiers and tags.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            match self.by_id(id)? {
                Type { kind: 8..=11 | 18, extent, .. } => id = extent,
                _ => return Some(id),
            }
        }
        None
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        if id == 0 { None } else { self.read(*self.types.get(id as usize)? as usize) }
    }

    fn read(&self, at: usize) -> Option<Type> {
        let info = word(&self.raw, at + 4)?;
        Some(Type {
            kind: u8::try_from(info >> 24 & 0x1f).ok()?,
            bits: info >> 31 == 1,
            count: (info & 0xffff) as usize,
            extent: word(&self.raw, at + 8)?,
            name: word(&self.raw, at)?,
            rest: at + 12,
        })
    }

    fn string(&self, at: u32) -> Option<&[u8]> {
        let rest = self.raw.get(self.strings.clone())?.get(at as usize..)?;
        rest.get(..rest.iter().position(|b| *b == 0)?)
    }
}

fn word(raw: &[u8], at: usize) -> Option<u32> {
    let bytes = raw.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the test's own data is small")]
mod tests {
    use super::*;

    /// A small kernel: `struct outer { int a; union { struct { int b; inner c; }; }; }`, and an enum.
    fn small() -> Vec<u8> {
        let mut names = vec![0];
        let mut name = |text: &str| {
            let at = names.len();
            names.extend_from_slice(text.as_bytes());
            names.push(0);
            at as u32
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            // 1: int
            vec![name("int"), info(1, 0), 4, 32],
            // 2: struct inner { int x; int y; }
            vec![name("inner"), info(4, 2), 8, name("x"), 1, 0, name("y"), 1, 32],
            // 3: typedef
            vec![name("inner_t"), info(8, 0), 2],
            // 4: struct { int b; inner_t c; }
            vec![0, info(4, 2), 12, name("b"), 1, 0, name("c"), 3, 32],
            // 5: union of it
            vec![0, info(5, 1), 12, 0, 4, 0],
            // 6: struct outer
            vec![name("outer"), info(4, 2), 16, name("a"), 1, 0, 0, 5, 32],
            // 7: enum numbers { ZERO, SEVEN = 7 }
            vec![name("numbers"), info(6, 2), 4, name("ZERO"), 0, name("SEVEN"), 7],
            // 8: a struct within itself, and a typedef of itself: no compiler makes these
            vec![name("loop"), info(4, 2), 4, 0, 8, 0, 0, 8, 0],
            vec![name("typeloop"), info(8, 0), 9],
            vec![name("user"), info(4, 1), 4, name("t"), 9, 0],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut raw = 0xeb9f_u16.to_ne_bytes().to_vec();
        raw.extend_from_slice(&[1, 0]);
        for word in [24, 0, types.len(), types.len(), names.len()] {
            raw.extend_from_slice(&(word as u32).to_ne_bytes());
        }
        [raw, types, names].concat()
    }

    fn ask(btf: &Btf) {
        for (of, path) in [("outer", "c.y"), ("outer", "nothing"), ("inner", "x"), ("loop", "q"), ("user", "t.q")] {
            let _ = btf.offset(of, path);
        }
        let _ = (btf.size_of("outer"), btf.enumerator("numbers", "SEVEN"), btf.has("inner", "y"));
    }

    #[test]
    fn finds_members_in_anonymous_ones() {
        let btf = Btf::parse(small()).unwrap();
        assert_eq!(btf.offset("outer", "a"), Ok(0));
        assert_eq!(btf.offset("outer", "b"), Ok(4));
        assert_eq!(btf.offset("outer", "c.y"), Ok(12));
        assert_eq!((btf.size_of("outer"), btf.size_of("inner")), (Ok(16), Ok(8)));
        assert_eq!(btf.enumerator("numbers", "SEVEN"), Ok(7));
        assert_eq!(btf.offset("outer", "z"), Err(Error::Missing("outer.z".into())));
        assert_eq!(btf.offset("loop", "z"), Err(Error::Missing("loop.z".into())));
        assert_eq!(btf.offset("user", "t.z"), Err(Error::Missing("user.t.z".into())));
        assert!(btf.enumerator("numbers", "EIGHT").is_err() && btf.size_of("nothing").is_err());
    }

    #[test]
    fn is_not_led_astray_by_damage() {
        let whole = small();
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "cut off at {len}");
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[at] = value;
                if let Ok(btf) = Btf::parse(bad) {
                    ask(&btf);
                }
            }
        }
    }

    #[test]
    fn reads_this_kernels() {
        let Ok(btf) = Btf::kernel() else {
            println!("not tested: this kernel has no BTF");
            return;
        };
        let btf = btf.unwrap();
        assert!(btf.offset("task_struct", "tgid").unwrap() < btf.size_of("task_struct").unwrap());
        assert!(super::super::offsets::of(&btf).is_ok());
        let functions = btf.functions(&["chmod_common", "no_such_function"]);
        assert_eq!(functions.into_iter().collect::<Vec<_>>(), [("chmod_common", vec![&b"path"[..], b""])]);
    }
}
