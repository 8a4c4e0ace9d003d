//! Unsigned LEB128 numbers as multiformats and Protocol Buffers write them, at most ten bytes.

/// Appends a number.
pub(crate) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes a number from the front; nothing where it is cut, above 64 bits or longer than it must be.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if index == 9 && *byte > 1 {
            return None;
        }
        number |= part << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return None;
            }
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}
