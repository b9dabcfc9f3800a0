//! Protobuf's wire format: fields by number, whatever they mean.

/// A field as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire<'a> {
    /// A number of variable length.
    Varint(u64),
    /// 64 bits, little-endian.
    Fixed64(u64),
    /// 32 bits, likewise.
    Fixed32(u32),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// The same, without its end.
    Cut(&'a [u8]),
}

/// The fields of a message, sorted by number, else in their order.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    fields: Vec<(u32, Wire<'a>)>,
    /// There was more, which could not be read.
    pub cut: bool,
}

impl<'a> Fields<'a> {
    /// Reads as far as it goes.
    pub fn read(mut bytes: &'a [u8]) -> Self {
        let mut new = Self::default();
        while !bytes.is_empty() {
            let Some(field) = field(&mut bytes) else {
                new.cut = true;
                break;
            };
            new.cut |= matches!(field.1, Wire::Cut(_));
            new.fields.push(field);
        }
        new.fields.sort_by_key(|(number, _)| *number);
        new
    }

    /// Those of this number.
    pub fn numbered(&self, number: u32) -> impl Iterator<Item = Wire<'a>> + Clone + use<'_, 'a> {
        let from = self.fields.partition_point(|(other, _)| *other < number);
        self.fields[from..].iter().take_while(move |(other, _)| *other == number).map(|(_, wire)| *wire)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(u32, Wire<'a>)> {
        self.fields.iter()
    }
}

/// A number of variable length, and what follows it.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(7 * at).filter(|shifted| shifted >> (7 * at) == part)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// 64 bits, and what follows them.
pub fn fixed64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
    let wire = match tag & 7 {
        0 => Wire::Varint(varint(bytes)?),
        1 => Wire::Fixed64(fixed64(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            if let Some((content, rest)) = bytes.split_at_checked(length) {
                *bytes = rest;
                Wire::Bytes(content)
            } else {
                Wire::Cut(std::mem::take(bytes))
            }
        }
        5 => {
            let (number, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Wire::Fixed32(u32::from_le_bytes(*number))
        }
        // Groups, which Kubernetes doesn't have.
        _ => return None,
    };
    Some((number, wire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked() {
        let read = |bytes: &[u8]| varint(&mut { bytes });
        assert_eq!(read(&[0x96, 0x01]), Some(150));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(read(&[0x80; 20]), None);
        assert_eq!(read(&[0x80]), None);
    }

    #[test]
    fn fields_are_read_as_far_as_they_go() {
        let told = |bytes: &[u8]| {
            let fields = Fields::read(bytes);
            let all: Vec<_> = fields.iter().copied().map(|(number, wire)| format!("{number} {wire:?}")).collect();
            (all.join(", "), fields.cut)
        };
        assert_eq!(told(&[0x10, 1, 0x0a, 1, b'a', 0x10, 2]), ("1 Bytes([97]), 2 Varint(1), 2 Varint(2)".to_owned(), false));
        assert_eq!(told(&[0x10, 1, 0x0a, 2, b'a']), ("1 Cut([97]), 2 Varint(1)".to_owned(), true));
        for damaged in [&[0x00, 1][..], &[0x13], &[0x0d, 1, 2, 3], &[0x09, 1], &[0x10]] {
            assert_eq!(told(damaged), (String::new(), true), "{damaged:?}");
        }
        assert_eq!(told(&[0x0d, 1, 0, 0, 0]), ("1 Fixed32(1)".to_owned(), false));
    }
}
