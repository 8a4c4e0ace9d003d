//! Rewrites a module so that its NaNs are canonical where their bits can be seen, and nowhere else.
//!
//! What `wasm-1` means is what wasmtime's own pass gives: every result of floating-point arithmetic that is a NaN is the
//! canonical one. That pass looks at each result. Here a look is left out where only arithmetic and comparisons come after
//! it, for to them all NaNs are alike (`flow` says where they are not), and what is left is a branch that is never taken.
//!
//! Fuel must not change with the code that is put in. So a rewritten module runs where every operator is free but `nop`
//! ([`operator_cost`]), and carries one `nop` before each operator that has a price in the profile: the sum is the same at
//! every point where wasmtime adds it up, stores it or looks at it.
//!
//! **Invariant:** a rewritten module gives the outputs, the ending and the fuel of the module it was made from.

mod flow;

use wasmparser::{Operator, OperatorsReader, Parser, Payload, ValidPayload, Validator, WasmFeatures};
use wasmtime::OperatorCost;

use self::flow::{Flow, Kind};

/// Bytes of one function's code at most, below what wasmtime takes.
const BODY_BYTES_MAX: usize = 7_000_000;
/// Bytes of a rewritten module at most; a larger one is not worth it.
const MODULE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Locals of a function at most, below what wasmtime takes with ours.
const LOCALS_MAX: u32 = 49_990;

const NOP: u8 = 0x01;
const CUSTOM_SECTION: u8 = 0;
const CODE_SECTION: u8 = 10;

/// What a valid module of the profile can hold.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST | WasmFeatures::RELAXED_SIMD
}

/// Prices for rewritten modules: 1 for a `nop`, nothing for all others. What bulk operations cost by length stays.
pub(crate) fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    macro_rules! free {
        ($(@$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            $(cost.$op = 0;)*
        };
    }
    wasmparser::for_each_operator!(free);
    cost.Nop = 1;
    cost
}

/// Whether an operator costs 1 in the profile, rather than nothing: wasmtime's default.
const fn has_a_price(operator: &Operator<'_>) -> bool {
    !matches!(
        operator,
        Operator::Nop
            | Operator::Drop
            | Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::Unreachable
            | Operator::Return
            | Operator::Else
            | Operator::End
    )
}

/// Rewrites a valid module of the profile. None: it is too large for that, or not what we know; wasmtime's own pass has to do.
pub(crate) fn rewrite(module: &[u8]) -> Option<Vec<u8>> {
    let mut validator = Validator::new_with_features(features());
    let mut sections = vec![(CUSTOM_SECTION, &[][..]); 0];
    let mut code_at = None;
    let (mut bodies, mut count, mut hints, mut hinted) = (Vec::new(), 0u32, Vec::new(), 0u32);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.ok()?;
        if let Some((id, range)) = payload.as_section()
            && id != CUSTOM_SECTION
            && !matches!(payload, Payload::CodeSectionEntry(_))
        {
            if id == CODE_SECTION {
                code_at = Some(sections.len());
            }
            sections.push((id, module.get(range)?));
        }
        if let ValidPayload::Func(function, body) = validator.payload(&payload).ok()? {
            let mut function = function.into_validator(Default::default());
            let rewritten = rewrite_body(module, &mut function, &body)?;
            unsigned(&mut bodies, rewritten.bytes.len() as u64);
            bodies.extend_from_slice(&rewritten.bytes);
            count += 1;
            if !rewritten.likely.is_empty() {
                hinted += 1;
                unsigned(&mut hints, u64::from(function.index()));
                unsigned(&mut hints, rewritten.likely.len() as u64);
                for at in rewritten.likely {
                    unsigned(&mut hints, at as u64);
                    hints.extend_from_slice(&[1, 1]);
                }
            }
        }
        if bodies.len() + hints.len() > MODULE_BYTES_MAX {
            return None;
        }
    }
    let mut out = module.get(..8)?.to_vec();
    for (index, (id, bytes)) in sections.into_iter().enumerate() {
        if code_at != Some(index) {
            section(&mut out, id, &[bytes]);
            continue;
        }
        let (mut name, mut counts) = (Vec::new(), Vec::new());
        unsigned(&mut name, HINTS.len() as u64);
        name.extend_from_slice(HINTS.as_bytes());
        unsigned(&mut name, u64::from(hinted));
        section(&mut out, CUSTOM_SECTION, &[&name, &hints]);
        unsigned(&mut counts, u64::from(count));
        section(&mut out, CODE_SECTION, &[&counts, &bodies]);
    }
    Some(out)
}

/// The section that says which way a branch goes.
const HINTS: &str = "metadata.code.branch_hint";

fn section(out: &mut Vec<u8>, id: u8, parts: &[&[u8]]) {
    out.push(id);
    unsigned(out, parts.iter().map(|part| part.len() as u64).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// LEB128.
fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Body {
    bytes: Vec<u8>,
    /// Offsets of the branches that are always taken but for a NaN.
    likely: Vec<usize>,
}

fn rewrite_body(
    module: &[u8],
    function: &mut wasmparser::FuncValidator<wasmparser::ValidatorResources>,
    body: &wasmparser::FunctionBody<'_>,
) -> Option<Body> {
    let mut reader = body.get_binary_reader();
    function.read_locals(&mut reader).ok()?;
    let locals = function.len_locals();
    if locals > LOCALS_MAX {
        return None;
    }
    let operators_at = reader.original_position();
    let looks = Flow::of(function, OperatorsReader::new(reader))?.looks();

    let mut bytes = Vec::with_capacity(body.range().len() * 2);
    let declared = body.get_locals_reader().ok()?;
    unsigned(&mut bytes, u64::from(declared.get_count()) + 3);
    let groups_at = declared.original_position();
    bytes.extend_from_slice(module.get(groups_at..operators_at)?);
    // Ours stand behind the function's own: one of each type that can hold a NaN.
    bytes.extend_from_slice(&[1, 0x7d, 1, 0x7c, 1, 0x7b]);

    let mut likely = Vec::new();
    let mut looks = looks.into_iter().peekable();
    let mut operators = body.get_operators_reader().ok()?;
    let mut index = 0;
    while !operators.eof() {
        let (operator, at) = operators.read_with_offset().ok()?;
        if has_a_price(&operator) {
            bytes.push(NOP);
        }
        if !matches!(operator, Operator::Nop) {
            bytes.extend_from_slice(module.get(at..operators.original_position())?);
        }
        while let Some((_, kind)) = looks.next_if(|(look, _)| *look == index) {
            look(&mut bytes, &mut likely, kind, locals);
        }
        if bytes.len() > BODY_BYTES_MAX {
            return None;
        }
        index += 1;
    }
    Some(Body { bytes, likely })
}

/// Puts the canonical NaN in the place of any NaN on top of the stack.
fn look(bytes: &mut Vec<u8>, likely: &mut Vec<usize>, kind: Kind, locals: u32) {
    const LOCAL_GET: u8 = 0x20;
    const LOCAL_SET: u8 = 0x21;
    const LOCAL_TEE: u8 = 0x22;
    let local = |bytes: &mut Vec<u8>, operator: u8| {
        bytes.push(operator);
        unsigned(bytes, u64::from(locals) + kind as u64);
    };
    match kind {
        Kind::F32 | Kind::F64 => {
            local(bytes, LOCAL_SET);
            bytes.extend_from_slice(&[0x02, 0x40]);
            local(bytes, LOCAL_GET);
            local(bytes, LOCAL_GET);
            // A number is at least itself: one comparison and one jump.
            bytes.push(if kind == Kind::F32 { 0x60 } else { 0x66 });
            likely.push(bytes.len());
            bytes.extend_from_slice(&[0x0d, 0]);
            constant(bytes, kind);
            local(bytes, LOCAL_SET);
            bytes.push(0x0b);
            local(bytes, LOCAL_GET);
        }
        Kind::F32x4 | Kind::F64x2 => {
            let local = |bytes: &mut Vec<u8>, operator: u8| {
                bytes.push(operator);
                unsigned(bytes, u64::from(locals) + 2);
            };
            local(bytes, LOCAL_TEE);
            constant(bytes, kind);
            local(bytes, LOCAL_GET);
            local(bytes, LOCAL_GET);
            // Equal to itself, lane by lane, then v128.bitselect.
            bytes.extend_from_slice(&[0xfd, if kind == Kind::F32x4 { 0x41 } else { 0x47 }]);
            bytes.extend_from_slice(&[0xfd, 0x52]);
        }
    }
}

fn constant(bytes: &mut Vec<u8>, kind: Kind) {
    let (single, double) = (0x7fc0_0000_u32.to_le_bytes(), 0x7ff8_0000_0000_0000_u64.to_le_bytes());
    match kind {
        Kind::F32 => {
            bytes.push(0x43);
            bytes.extend_from_slice(&single);
        }
        Kind::F64 => {
            bytes.push(0x44);
            bytes.extend_from_slice(&double);
        }
        Kind::F32x4 => {
            bytes.extend_from_slice(&[0xfd, 0x0c]);
            bytes.extend_from_slice(&single.repeat(4));
        }
        Kind::F64x2 => {
            bytes.extend_from_slice(&[0xfd, 0x0c]);
            bytes.extend_from_slice(&double.repeat(2));
        }
    }
}
