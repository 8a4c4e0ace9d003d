//! Arrays of numbers in binary files.
//!
//! Sources: NumPy Enhancement Proposal 1 (`.npy`, versions 1 to 3) and the safetensors format page.

use super::Tolerance;
use crate::{
    json::{self, Json},
    samples::Visit,
};

/// Elements of an array that are all held as text at once.
const TREE_ELEMENTS_MAX: usize = 1 << 21;

/// How one element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Signed,
    Unsigned,
    Float,
    BrainFloat,
    /// Compared byte for byte.
    Opaque,
}

/// An array of elements of one kind.
struct Array<'a> {
    kind: Kind,
    /// Bytes of one element.
    width: usize,
    big_endian: bool,
    bytes: &'a [u8],
}

impl Array<'_> {
    fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// An element's bytes, least significant first.
    fn element(&self, index: usize) -> [u8; 8] {
        let mut bytes = [0; 8];
        let own = &self.bytes[index * self.width..][..self.width];
        bytes[..self.width].copy_from_slice(own);
        if self.big_endian {
            bytes[..self.width].reverse();
        }
        bytes
    }

    fn integer(&self, index: usize) -> i128 {
        let value = u64::from_le_bytes(self.element(index));
        let shift = 64 - 8 * self.width as u32;
        match self.kind {
            Kind::Signed => i128::from((value << shift).cast_signed() >> shift),
            _ => i128::from(value),
        }
    }

    fn single(&self, index: usize) -> f32 {
        let element = self.element(index);
        match (self.kind, self.width) {
            (Kind::BrainFloat, _) => f32::from_le_bytes([0, 0, element[0], element[1]]),
            (_, 2) => half(u16::from_le_bytes([element[0], element[1]])),
            _ => f32::from_le_bytes([element[0], element[1], element[2], element[3]]),
        }
    }

    fn double(&self, index: usize) -> f64 {
        f64::from_le_bytes(self.element(index))
    }

    /// The nearest double; nothing of opaque elements.
    fn number(&self, index: usize) -> Option<f64> {
        match (self.kind, self.width) {
            (Kind::Signed | Kind::Unsigned, _) => Some(self.integer(index) as f64),
            (Kind::Float, 8) => Some(self.double(index)),
            (Kind::Float | Kind::BrainFloat, _) => Some(f64::from(self.single(index))),
            (Kind::Opaque, _) => None,
        }
    }

    fn show(&self, index: usize) -> String {
        match (self.kind, self.width) {
            (Kind::Signed | Kind::Unsigned, _) => self.integer(index).to_string(),
            (Kind::Float, 8) => self.double(index).to_string(),
            (Kind::Float | Kind::BrainFloat, _) => self.single(index).to_string(),
            (Kind::Opaque, _) => format!("0x{}", hex::encode(&self.bytes[index * self.width..][..self.width])),
        }
    }
}

/// Half precision as single; every value is exact.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => {
            let value = fraction as f32 / 16_777_216.0;
            if sign == 1 { -value } else { value }
        }
        31 => f32::from_bits(sign << 31 | 0xff << 23 | fraction << 13),
        _ => f32::from_bits(sign << 31 | (exponent + 112) << 23 | fraction << 13),
    }
}

fn compare_arrays(tolerance: &Tolerance, name: &str, own: &Array<'_>, claimed: &Array<'_>) -> Option<String> {
    let integers = matches!(own.kind, Kind::Signed | Kind::Unsigned);
    let plain = Tolerance { ulps: 0, ..*tolerance };
    // Half precision has no ulps of its own here: two neighbours differ by 2^13 (2^16 for bfloat16) single ulps.
    let ulps = match (own.kind, own.width) {
        (Kind::BrainFloat, _) => tolerance.ulps.saturating_mul(1 << 16),
        (Kind::Float, 2) => tolerance.ulps.saturating_mul(1 << 13),
        _ => tolerance.ulps,
    };
    let scaled = Tolerance { ulps, ..*tolerance };
    let agree = |index| match (own.kind, own.width) {
        _ if own.element(index) == claimed.element(index) => true,
        _ if integers => {
            let (a, b) = (own.integer(index), claimed.integer(index));
            plain.allows(a.abs_diff(b) as f64, a.unsigned_abs().max(b.unsigned_abs()) as f64)
        }
        (Kind::Float, 8) => tolerance.agree_f64(own.double(index), claimed.double(index)),
        (Kind::Float | Kind::BrainFloat, _) => scaled.agree_f32(own.single(index), claimed.single(index)),
        _ => false,
    };
    let found = (0..own.len().min(claimed.len())).find(|index| !agree(*index));
    found.map(|index| format!("{name}[{index}]: expected {}, claimed {}", own.show(index), claimed.show(index)))
}

struct Npy<'a> {
    array: Array<'a>,
    fortran: bool,
    shape: Vec<u64>,
}

/// Looks up a key of the header, a Python dictionary of a fixed form.
fn header_value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}':"), format!("\"{key}\":")];
    let at = quoted.iter().find_map(|quoted| header.find(quoted.as_str()).map(|at| at + quoted.len()))?;
    Some(header[at..].trim_start())
}

fn read_npy(bytes: &[u8]) -> Result<Npy<'_>, String> {
    let head = bytes.get(..10).filter(|head| head.starts_with(b"\x93NUMPY")).ok_or("is no .npy file")?;
    let (start, length) = match head[6] {
        1 => (10, usize::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => {
            let length = bytes.get(8..12).ok_or("is cut off")?;
            (12, u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize)
        }
        version => return Err(format!("is .npy version {version}")),
    };
    let header = bytes.get(start..start + length).ok_or("is cut off")?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is no text")?;
    let text = |key: &str| header_value(header, key).ok_or(format!("has a header without {key}"));
    let descr = text("descr")?;
    let quote = descr.chars().next().filter(|quote| matches!(quote, '\'' | '"')).ok_or("is an array of records")?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let fortran = text("fortran_order")?.starts_with("True");
    let shape = text("shape")?.strip_prefix('(').and_then(|rest| rest.split(')').next()).ok_or("has no shape")?;
    let shape = shape.split(',').map(str::trim).filter(|part| !part.is_empty());
    let shape = shape.map(|part| part.parse::<u64>().map_err(|_| "has a shape that is no numbers"));
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    let (order, letter, width) = match (descr.get(..1), descr.get(1..2), descr.get(2..)) {
        (Some(order), Some(letter), Some(width)) => (order, letter, width.parse::<usize>().unwrap_or(0)),
        _ => return Err(format!("has elements of type {descr:?}")),
    };
    let kind = match (letter, width) {
        ("i", 1 | 2 | 4 | 8) => Kind::Signed,
        ("u" | "b", 1 | 2 | 4 | 8) => Kind::Unsigned,
        ("f", 2 | 4 | 8) => Kind::Float,
        _ => return Err(format!("has elements of type {descr:?}")),
    };
    let elements = shape.iter().try_fold(1u64, |all, part| all.checked_mul(*part));
    let data = &bytes[start + length..];
    if elements.and_then(|all| all.checked_mul(width as u64)) != Some(data.len() as u64) {
        return Err(format!("has {} bytes of data, which its shape does not have", data.len()));
    }
    Ok(Npy { array: Array { kind, width, big_endian: order == ">", bytes: data }, fortran, shape })
}

/// Two arrays of one form, or the difference.
fn npy_pair<'a>(own: &'a [u8], claimed: &'a [u8]) -> Result<Result<(Npy<'a>, Npy<'a>), String>, String> {
    let own = read_npy(own).map_err(|problem| format!("what is expected {problem}"))?;
    let claimed = read_npy(claimed).map_err(|problem| format!("what is claimed {problem}"))?;
    if own.shape != claimed.shape {
        return Ok(Err(format!("shape: expected {:?}, claimed {:?}", own.shape, claimed.shape)));
    }
    let form = |npy: &Npy<'_>| (npy.array.kind, npy.array.width, npy.fortran);
    if form(&own) != form(&claimed) {
        return Ok(Err(format!("form: expected {:?}, claimed {:?}", form(&own), form(&claimed))));
    }
    Ok(Ok((own, claimed)))
}

pub(super) fn compare_npy(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> Result<Option<String>, String> {
    let pair = npy_pair(own, claimed)?;
    Ok(pair.map_or_else(Some, |(own, claimed)| compare_arrays(tolerance, "element ", &own.array, &claimed.array)))
}

/// Where the element of that index in the order of C stands in an array in the order of Fortran.
fn fortran_place(shape: &[usize], index: usize) -> usize {
    let (mut rest, mut place, mut step) = (index, 0, 1);
    let mut inner: usize = shape.iter().product();
    for side in shape {
        inner /= side;
        place += rest / inner * step;
        rest %= inner;
        step *= side;
    }
    place
}

/// Visits the rows of two arrays of one shape.
fn array_rows(
    name: &str,
    (shape, fortran): (&[usize], bool),
    own: &Array<'_>,
    claimed: &Array<'_>,
    visit: Visit<'_>,
) -> Result<(), String> {
    let elements = own.len();
    if elements == 0 {
        return Ok(());
    }
    if own.kind == Kind::Opaque {
        let found = (0..elements).find(|index| own.element(*index) != claimed.element(*index));
        return found.map_or(Ok(()), |index| {
            Err(format!("{name}[{index}]: expected {}, claimed {}", own.show(index), claimed.show(index)))
        });
    }
    let rows = if shape.len() < 2 { 1 } else { shape[0] };
    let length = elements / rows;
    for row in 0..rows {
        let values = |array: &Array<'_>| -> Vec<f64> {
            let place = |index| if fortran { fortran_place(shape, index) } else { index };
            (row * length..(row + 1) * length).filter_map(|index| array.number(place(index))).collect()
        };
        let label = if shape.len() < 2 { name.trim_end().to_owned() } else { format!("{name}[{row}]") };
        visit(&label, &values(own), &values(claimed));
    }
    Ok(())
}

/// Visits the rows of two `.npy` files.
///
/// # Errors
/// What is no `.npy`; inside, the first difference of form.
pub(crate) fn npy_rows(own: &[u8], claimed: &[u8], visit: Visit<'_>) -> Result<Result<(), String>, String> {
    let (own, claimed) = match npy_pair(own, claimed)? {
        Ok(pair) => pair,
        Err(difference) => return Ok(Err(difference)),
    };
    // As many elements as there are bytes at most, so every side fits.
    let shape: Vec<usize> = own.shape.iter().map(|side| usize::try_from(*side).unwrap_or(usize::MAX)).collect();
    Ok(array_rows("row ", (&shape, own.fortran), &own.array, &claimed.array, visit))
}

type Tensors<'a> = std::collections::BTreeMap<String, (String, Json, Array<'a>)>;

fn read_safetensors(bytes: &[u8]) -> Result<(Tensors<'_>, Option<Json>), String> {
    let length = bytes.get(..8).ok_or("is cut off")?;
    let length = u64::from_le_bytes(length.try_into().map_err(|_| "is cut off")?);
    let length = usize::try_from(length).map_err(|_| "is cut off")?;
    let header = length.checked_add(8).and_then(|end| bytes.get(8..end)).ok_or("is cut off")?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is no UTF-8")?;
    let Json::Object(fields) = json::parse(header.trim_end())? else {
        return Err("has a header that is no object".into());
    };
    let data = &bytes[8 + length..];
    let (mut tensors, mut metadata) = (Tensors::new(), None);
    let mut ranges = Vec::new();
    for (name, tensor) in fields {
        if name == "__metadata__" {
            metadata = Some(tensor);
            continue;
        }
        let (Some(Json::Text(dtype)), Some(shape), Some(Json::List(offsets))) =
            (tensor.get("dtype"), tensor.get("shape"), tensor.get("data_offsets"))
        else {
            return Err(format!("has a tensor {name:?} without dtype, shape or data_offsets"));
        };
        let number = |value: Option<&Json>| match value {
            Some(Json::Number(text)) => text.parse::<usize>().ok(),
            _ => None,
        };
        let range = number(offsets.first()).zip(number(offsets.get(1)));
        let (start, end) = range.unwrap_or((1, 0));
        let bytes = data.get(start..end).ok_or(format!("has no data for {name:?}"))?;
        let (kind, width) = match dtype.as_str() {
            "F64" => (Kind::Float, 8),
            "F32" => (Kind::Float, 4),
            "F16" => (Kind::Float, 2),
            "BF16" => (Kind::BrainFloat, 2),
            "I64" => (Kind::Signed, 8),
            "I32" => (Kind::Signed, 4),
            "I16" => (Kind::Signed, 2),
            "I8" => (Kind::Signed, 1),
            "U64" => (Kind::Unsigned, 8),
            "U32" => (Kind::Unsigned, 4),
            "U16" => (Kind::Unsigned, 2),
            "U8" | "BOOL" => (Kind::Unsigned, 1),
            _ => (Kind::Opaque, 1),
        };
        let Json::List(sides) = shape else { return Err(format!("has no shape for {name:?}")) };
        let elements = sides.iter().try_fold(1usize, |all, side| all.checked_mul(number(Some(side))?));
        if kind != Kind::Opaque && elements.and_then(|all| all.checked_mul(width)) != Some(bytes.len()) {
            return Err(format!("has {} bytes for {name:?}, which its shape does not have", bytes.len()));
        }
        ranges.push((start, end));
        tensors.insert(name, (dtype.clone(), shape.clone(), Array { kind, width, big_endian: false, bytes }));
    }
    // One after the other, without holes, from the first byte to the last.
    ranges.sort_unstable();
    let covered = ranges.iter().try_fold(0, |at, (start, end)| (*start == at).then_some(*end));
    if covered != Some(data.len()) {
        return Err("has bytes that belong to no tensor, or to two".into());
    }
    Ok((tensors, metadata))
}

/// What is done with a tensor's name, shape and two sides; the first difference ends it.
type VisitTensors<'a> = &'a mut dyn FnMut(&str, &Json, &Array<'_>, &Array<'_>) -> Result<(), String>;

/// Visits the tensors of two files.
fn tensors(own: &[u8], claimed: &[u8], visit: VisitTensors<'_>) -> Result<Result<(), String>, String> {
    let (own, own_metadata) = read_safetensors(own).map_err(|problem| format!("what is expected {problem}"))?;
    let (claimed, claimed_metadata) =
        read_safetensors(claimed).map_err(|problem| format!("what is claimed {problem}"))?;
    let (a, b) = (own_metadata.unwrap_or(Json::Null), claimed_metadata.unwrap_or(Json::Null));
    let exact = Tolerance { relative: 0.0, absolute: 0.0, ulps: 0 };
    if let Some(difference) = super::compare_values(&exact, "__metadata__", &a, &b) {
        return Ok(Err(difference));
    }
    let names: std::collections::BTreeSet<_> = own.keys().chain(claimed.keys()).collect();
    for name in names {
        let found = match (own.get(name), claimed.get(name)) {
            (Some(_), None) => Err(format!("{name}: expected, not claimed")),
            (None, _) => Err(format!("{name}: claimed, not expected")),
            (Some((own_type, own_shape, own)), Some((claimed_type, claimed_shape, claimed))) => {
                if own_type != claimed_type {
                    Err(format!("{name}: expected {own_type}, claimed {claimed_type}"))
                } else if own_shape != claimed_shape || own.len() != claimed.len() {
                    Err(format!("{name}: another shape is claimed"))
                } else {
                    visit(name, own_shape, own, claimed)
                }
            }
        };
        if found.is_err() {
            return Ok(found);
        }
    }
    Ok(Ok(()))
}

pub(super) fn compare_safetensors(tolerance: &Tolerance, own: &[u8], claimed: &[u8]) -> Result<Option<String>, String> {
    let found = tensors(own, claimed, &mut |name, _, own, claimed| {
        compare_arrays(tolerance, name, own, claimed).map_or(Ok(()), Err)
    })?;
    Ok(found.err())
}

fn sides(shape: &Json) -> Vec<usize> {
    let Json::List(sides) = shape else { return Vec::new() };
    let side = |side: &Json| if let Json::Number(text) = side { text.parse().unwrap_or(0) } else { 0 };
    sides.iter().map(side).collect()
}

/// Visits the rows of two `.safetensors` files.
///
/// # Errors
/// What is no `.safetensors`; inside, the first difference of form.
pub(crate) fn safetensors_rows(own: &[u8], claimed: &[u8], visit: Visit<'_>) -> Result<Result<(), String>, String> {
    tensors(own, claimed, &mut |name, shape, own, claimed| {
        array_rows(name, (&sides(shape), false), own, claimed, visit)
    })
}

/// The tokens and the bits of the one BF16 tensor, tokens by width, of a `.safetensors` file.
///
/// # Errors
/// What it is not.
pub(crate) fn brain_floats(bytes: &[u8]) -> Result<(usize, Vec<u16>), String> {
    let (tensors, _) = read_safetensors(bytes).map_err(|problem| format!("is no .safetensors file: {problem}"))?;
    let mut all = tensors.values();
    let (Some((_, shape, array)), None) = (all.next(), all.next()) else {
        return Err(format!("has {} tensors, not one", tensors.len()));
    };
    let sides = sides(shape);
    if array.kind != Kind::BrainFloat || sides.len() != 2 {
        return Err("has a tensor that is not BF16, tokens by width".into());
    }
    let bits = array.bytes.chunks_exact(2).map(|element| u16::from_le_bytes([element[0], element[1]]));
    Ok((sides[0], bits.collect()))
}

/// Elements of an array as nested lists in the order of C.
fn nested(array: &Array<'_>, shape: &[usize], fortran: bool) -> Result<Json, String> {
    fn level(leaves: &mut dyn Iterator<Item = Json>, sides: &[usize]) -> Json {
        match sides {
            [] => leaves.next().unwrap_or(Json::Null),
            [side, inner @ ..] => Json::List((0..*side).map(|_| level(leaves, inner)).collect()),
        }
    }
    if array.kind == Kind::Opaque || shape.len() > 32 {
        return Err("has elements that are no numbers, or more than 32 axes".into());
    }
    if array.len() > TREE_ELEMENTS_MAX {
        return Err(format!("has {} elements, more than {TREE_ELEMENTS_MAX}", array.len()));
    }
    // Empty lists would not be bounded by the bytes.
    if array.len() == 0 {
        return Err("has no elements".into());
    }
    let place = |index| if fortran { fortran_place(shape, index) } else { index };
    let text = |index: usize| match array.kind {
        Kind::Signed | Kind::Unsigned => array.show(index),
        _ => array.number(index).unwrap_or(f64::NAN).to_string(),
    };
    let mut leaves = (0..array.len()).map(|index| Json::Number(text(place(index))));
    Ok(level(&mut leaves, shape))
}

/// The numbers of a `.npy` or `.safetensors` file; nothing where the bytes are neither.
pub(crate) fn tree(bytes: &[u8]) -> Option<Result<Json, String>> {
    if bytes.starts_with(b"\x93NUMPY") {
        return Some(read_npy(bytes).and_then(|npy| {
            let shape: Vec<usize> = npy.shape.iter().map(|side| usize::try_from(*side).unwrap_or(usize::MAX)).collect();
            nested(&npy.array, &shape, npy.fortran)
        }));
    }
    // No text begins with a length that the rest of the file has room for.
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    if bytes.get(8) != Some(&b'{') || length > bytes.len() as u64 {
        return None;
    }
    Some(read_safetensors(bytes).and_then(|(tensors, _)| {
        let fields = tensors.iter().map(|(name, (_, shape, array))| {
            nested(array, &sides(shape), false)
                .map(|tree| (name.clone(), tree))
                .map_err(|problem| format!("{name} {problem}"))
        });
        fields.collect::<Result<_, _>>().map(Json::Object)
    }))
}
