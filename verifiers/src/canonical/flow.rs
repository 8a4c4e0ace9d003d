//! Which NaNs of a function can be told apart.
//!
//! A result of arithmetic may stay as the processor made it as long as only arithmetic, comparisons, conversions to
//! integers and locals come after it. A value whose bits may be seen (stored, passed, returned, reinterpreted, selected) is
//! looked at: where it was computed, or where it is read from its local. The latter is right only for a local that never
//! holds what came from memory, a parameter or a call: such bits are the program's own, and stay.

use wasmparser::{FuncValidator, Operator, OperatorsReader, ValType, ValidatorResources};

/// What a look is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32 = 0,
    F64 = 1,
    F32x4,
    F64x2,
}

type NodeId = u32;
/// Bits that the program put together itself.
const BITS: NodeId = 0;
/// A number or the canonical NaN.
const NUMBER: NodeId = 1;

enum Node {
    Bits,
    Number,
    /// Arithmetic.
    Result {
        at: usize,
        kind: Kind,
    },
    /// Read from a local.
    Get {
        at: usize,
        local: u32,
    },
    /// The sign of another one may differ.
    Sign(NodeId),
}

#[derive(Clone, Default)]
struct Local {
    kind: Option<Kind>,
    /// May hold the program's own bits.
    bits: bool,
    sets: Vec<NodeId>,
    /// How often it is written, guessed from the depth of loops.
    set_weight: u64,
    /// Reads that have to be looked at, where the local itself is not.
    seen: Vec<NodeId>,
    /// What is written is looked at.
    strict: bool,
}

pub(super) struct Flow {
    nodes: Vec<Node>,
    locals: Vec<Local>,
    /// Weight of each node's place.
    weights: Vec<u64>,
    /// Values whose bits may be seen.
    open: Vec<NodeId>,
    looks: Vec<(usize, Kind)>,
}

/// What an operator does with floats.
enum Does {
    /// A result whose NaN the profile makes canonical.
    Arithmetic(Kind),
    /// The same for vectors; these are always looked at.
    Vector(Kind),
    /// All NaNs are alike to it, and none comes of it.
    Blind,
    Negate,
    /// The same bits but for the sign, which becomes that of a canonical NaN.
    Absolute,
    CopySign,
    Constant(bool),
    Get(u32),
    Set(u32),
    Tee(u32),
    /// Anything may come of it.
    Other,
}

fn does(operator: &Operator<'_>) -> Does {
    use Operator as O;
    match operator {
        O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest
        | O::F32Sqrt
        | O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Div
        | O::F32Min
        | O::F32Max
        | O::F32DemoteF64 => Does::Arithmetic(Kind::F32),
        O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest
        | O::F64Sqrt
        | O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Div
        | O::F64Min
        | O::F64Max
        | O::F64PromoteF32 => Does::Arithmetic(Kind::F64),
        O::F32x4Ceil
        | O::F32x4Floor
        | O::F32x4Trunc
        | O::F32x4Nearest
        | O::F32x4Sqrt
        | O::F32x4Add
        | O::F32x4Sub
        | O::F32x4Mul
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F32x4DemoteF64x2Zero
        | O::F32x4RelaxedMadd
        | O::F32x4RelaxedNmadd
        | O::F32x4RelaxedMin
        | O::F32x4RelaxedMax => Does::Vector(Kind::F32x4),
        O::F64x2Ceil
        | O::F64x2Floor
        | O::F64x2Trunc
        | O::F64x2Nearest
        | O::F64x2Sqrt
        | O::F64x2Add
        | O::F64x2Sub
        | O::F64x2Mul
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::F64x2PromoteLowF32x4
        | O::F64x2RelaxedMadd
        | O::F64x2RelaxedNmadd
        | O::F64x2RelaxedMin
        | O::F64x2RelaxedMax => Does::Vector(Kind::F64x2),
        O::F32Eq
        | O::F32Ne
        | O::F32Lt
        | O::F32Gt
        | O::F32Le
        | O::F32Ge
        | O::F64Eq
        | O::F64Ne
        | O::F64Lt
        | O::F64Gt
        | O::F64Le
        | O::F64Ge
        | O::I32TruncF32S
        | O::I32TruncF32U
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U
        | O::F32ConvertI32S
        | O::F32ConvertI32U
        | O::F32ConvertI64S
        | O::F32ConvertI64U
        | O::F64ConvertI32S
        | O::F64ConvertI32U
        | O::F64ConvertI64S
        | O::F64ConvertI64U
        | O::Drop => Does::Blind,
        O::F32Neg | O::F64Neg => Does::Negate,
        O::F32Abs | O::F64Abs => Does::Absolute,
        O::F32Copysign | O::F64Copysign => Does::CopySign,
        O::F32Const { value } => Does::Constant(f32::from_bits(value.bits()).is_nan()),
        O::F64Const { value } => Does::Constant(f64::from_bits(value.bits()).is_nan()),
        O::LocalGet { local_index } => Does::Get(*local_index),
        O::LocalSet { local_index } => Does::Set(*local_index),
        O::LocalTee { local_index } => Does::Tee(*local_index),
        _ => Does::Other,
    }
}

impl Flow {
    /// Follows the floats of a function whose locals the validator has read. None: it is not what we know.
    pub(super) fn of(
        function: &mut FuncValidator<ValidatorResources>,
        mut operators: OperatorsReader<'_>,
    ) -> Option<Self> {
        let mut flow = Self {
            nodes: vec![Node::Bits, Node::Number],
            locals: vec![Local::default(); function.len_locals() as usize],
            weights: vec![0; 2],
            open: Vec::new(),
            looks: Vec::new(),
        };
        let parameters = {
            use wasmparser::WasmModuleResources as _;
            let resources = function.resources();
            let ty = resources.type_index_of_function(function.index())?;
            resources.sub_type_at(ty)?.composite_type.unwrap_func().params().len()
        };
        for (index, local) in flow.locals.iter_mut().enumerate() {
            local.kind = match function.get_local_type(index as u32)? {
                ValType::F32 => Some(Kind::F32),
                ValType::F64 => Some(Kind::F64),
                _ => None,
            };
            local.bits = index < parameters;
        }
        let mut stack: Vec<NodeId> = Vec::new();
        let mut loops = Vec::new();
        let (mut depth, mut at) = (0u32, 0);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset().ok()?;
            let reached = !function.get_control_frame(0)?.unreachable;
            if reached {
                let (pops, pushes) = operator.operator_arity(function)?;
                flow.step(&operator, at, depth, &mut stack, pops as usize, pushes as usize)?;
            }
            match operator {
                Operator::Loop { .. } => {
                    depth += 1;
                    loops.push(true);
                }
                Operator::Block { .. } | Operator::If { .. } => loops.push(false),
                Operator::End => depth -= u32::from(loops.pop().unwrap_or(false)),
                _ => {}
            }
            function.op(offset, &operator).ok()?;
            stack.resize(function.operand_stack_height() as usize, BITS);
            at += 1;
        }
        flow.spread_bits();
        flow.see();
        Some(flow)
    }

    /// Where to look, and at what, in the order of operators.
    pub(super) fn looks(mut self) -> Vec<(usize, Kind)> {
        self.looks.sort_unstable_by_key(|(at, _)| *at);
        self.looks
    }

    fn node(&mut self, node: Node, depth: u32) -> NodeId {
        self.nodes.push(node);
        self.weights.push(8u64.pow(depth.min(8)));
        (self.nodes.len() - 1) as NodeId
    }

    fn step(
        &mut self,
        operator: &Operator<'_>,
        at: usize,
        depth: u32,
        stack: &mut Vec<NodeId>,
        pops: usize,
        pushes: usize,
    ) -> Option<()> {
        let base = stack.len().checked_sub(pops)?;
        let float = |flow: &Self, local: u32| flow.locals.get(local as usize).and_then(|local| local.kind).is_some();
        match does(operator) {
            Does::Arithmetic(kind) => {
                stack.truncate(base);
                stack.push(self.node(Node::Result { at, kind }, depth));
            }
            Does::Blind => {
                stack.truncate(base);
                stack.resize(base + pushes, NUMBER);
            }
            Does::Absolute => {}
            Does::Negate => {
                let value = stack.pop()?;
                stack.push(self.node(Node::Sign(value), depth));
            }
            Does::CopySign => {
                self.open.push(stack.pop()?);
                let value = stack.pop()?;
                stack.push(self.node(Node::Sign(value), depth));
            }
            Does::Constant(nan) => stack.push(if nan { BITS } else { NUMBER }),
            Does::Get(local) if float(self, local) => stack.push(self.node(Node::Get { at, local }, depth)),
            Does::Set(local) | Does::Tee(local) if float(self, local) => {
                let value = *stack.last()?;
                stack.truncate(base);
                stack.resize(base + pushes, value);
                let local = &mut self.locals[local as usize];
                local.sets.push(value);
                local.set_weight = local.set_weight.saturating_add(8u64.pow(depth.min(8)));
            }
            done => {
                if let Does::Vector(kind) = done {
                    self.looks.push((at, kind));
                }
                let values = stack.drain(base..).filter(|value| *value > NUMBER);
                self.open.extend(values);
                stack.resize(base + pushes, BITS);
            }
        }
        Some(())
    }

    /// A local that is written from one with the program's own bits has such bits, too.
    fn spread_bits(&mut self) {
        let mut copies: Vec<Vec<u32>> = vec![Vec::new(); self.locals.len()];
        let mut left: Vec<u32> = Vec::new();
        for (index, local) in self.locals.iter_mut().enumerate() {
            for set in &local.sets {
                match self.nodes[*set as usize] {
                    Node::Bits | Node::Sign(_) => local.bits = true,
                    Node::Get { local: from, .. } => copies[from as usize].push(index as u32),
                    Node::Number | Node::Result { .. } => {}
                }
            }
            if local.bits {
                left.push(index as u32);
            }
        }
        while let Some(local) = left.pop() {
            for to in std::mem::take(&mut copies[local as usize]) {
                if !self.locals[to as usize].bits {
                    self.locals[to as usize].bits = true;
                    left.push(to);
                }
            }
        }
    }

    /// Finds what has to be looked at for all open values.
    fn see(&mut self) {
        let mut done = vec![false; self.nodes.len()];
        let mut left = std::mem::take(&mut self.open);
        self.follow(&mut left, &mut done);
        // Looking where a local is written can be cheaper than where it is read.
        for index in 0..self.locals.len() {
            let local = &self.locals[index];
            let seen: u64 = local.seen.iter().fold(0, |sum, get| sum.saturating_add(self.weights[*get as usize]));
            if !local.strict && seen > local.set_weight {
                self.be_strict(index, &mut left);
                self.follow(&mut left, &mut done);
            }
        }
        for local in &self.locals {
            for get in local.seen.iter().filter(|_| !local.strict) {
                if let (Node::Get { at, .. }, Some(kind)) = (&self.nodes[*get as usize], local.kind) {
                    self.looks.push((*at, kind));
                }
            }
        }
    }

    fn be_strict(&mut self, local: usize, left: &mut Vec<NodeId>) {
        let local = &mut self.locals[local];
        local.strict = true;
        left.append(&mut local.sets);
    }

    fn follow(&mut self, left: &mut Vec<NodeId>, done: &mut [bool]) {
        while let Some(node) = left.pop() {
            if std::mem::replace(&mut done[node as usize], true) {
                continue;
            }
            match self.nodes[node as usize] {
                Node::Bits | Node::Number => {}
                Node::Result { at, kind } => self.looks.push((at, kind)),
                Node::Sign(of) => left.push(of),
                Node::Get { local, .. } => {
                    let local = local as usize;
                    match &mut self.locals[local] {
                        Local { strict: true, .. } => {}
                        Local { bits: true, .. } => self.be_strict(local, left),
                        free => free.seen.push(node),
                    }
                }
            }
        }
    }
}
