//! Modules are rewritten before they run: what comes out must be what wasmtime's own means give, bit for bit.

use std::sync::LazyLock;

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use tribunal_verifiers::{OperatorLimits, Request, Service};

use crate::{
    bench::{Bench, SERVICE},
    jobs,
};

static REFERENCE: LazyLock<Service> =
    LazyLock::new(|| Service::new(OperatorLimits::default(), Vec::new()).by_reference());

/// Everything that a run says of itself.
fn said(service: &Service, bench: &Bench) -> (String, Value) {
    let request = Request::parse(&bench.request.to_string()).expect("a good request");
    let verdict = service.verify_from(&request, &bench.source).expect("a verdict");
    let evidence = &verdict.evidence.fields;
    let own = ["own_stdout", "own_outputs", "own_termination", "own_exit_code", "fuel_used"];
    let own = own.map(|name| evidence.get(name).cloned().unwrap_or_default());
    (verdict.reason.detail, own.to_vec().into())
}

#[track_caller]
fn agree(bench: &Bench, what: &str) -> Value {
    let (own, reference) = (said(&SERVICE, bench), said(&REFERENCE, bench));
    assert_eq!(own, reference, "{what}");
    own.1
}

#[test]
fn the_fixtures_give_the_same_either_way() {
    for name in jobs::JOBS {
        let (request, source) = (jobs::request(name), jobs::source(name));
        let request = Request::parse(&request.to_string()).expect("a good request");
        let verify = |service: &Service| service.verify_from(&request, &source).expect("a verdict");
        let (own, reference) = (verify(&SERVICE), verify(&REFERENCE));
        assert_eq!((own.digest, own.evidence.fields), (reference.digest, reference.evidence.fields), "{name}");
    }
}

/// Writes a module's functions at random: floats through every operator, locals, loops, calls, branches and memory, with
/// NaNs of all kinds among them.
struct Writer {
    random: ChaCha20Rng,
    text: String,
    loops: u32,
}

const TYPES: [&str; 3] = ["f64", "f32", "v128"];
const MEMORY: u32 = 2048;

impl Writer {
    fn pick(&mut self, all: &[&'static str]) -> &'static str {
        all.choose(&mut self.random).expect("some")
    }

    fn below(&mut self, end: u32) -> u32 {
        self.random.next_u32() % end
    }

    fn bits(&mut self, single: bool) -> &'static str {
        let single_all = ["nan", "-nan", "nan:0x200001", "-nan:0x7fffff", "inf", "-inf", "0", "-0", "1.5", "-3e38"];
        let double_all =
            ["nan", "-nan", "nan:0x4000000000001", "-nan:0xfffffffffffff", "inf", "-inf", "0", "-0", "2.5"];
        if single { self.pick(&single_all) } else { self.pick(&double_all) }
    }

    fn address(&mut self) -> String {
        format!("(i32.const {})", self.below(MEMORY / 16) * 16)
    }

    fn float(&mut self, ty: &str, depth: u32) -> String {
        let other = if ty == "f64" { "f32" } else { "f64" };
        let variant = if depth == 0 { self.below(4) } else { self.below(22) };
        let next = depth.saturating_sub(1);
        match variant {
            0 | 1 => format!("(local.get ${ty}{})", self.below(4)),
            2 => format!("({ty}.const {})", self.bits(ty == "f32")),
            3 => format!("({ty}.load {})", self.address()),
            4..=10 => {
                let operator = self.pick(&["add", "sub", "mul", "div", "min", "max", "add", "sub"]);
                format!("({ty}.{operator} {} {})", self.float(ty, next), self.float(ty, next))
            }
            11 | 12 => {
                let operator = self.pick(&["sqrt", "ceil", "floor", "trunc", "nearest"]);
                format!("({ty}.{operator} {})", self.float(ty, next))
            }
            13 => {
                let operator = self.pick(&["neg", "abs"]);
                format!("({ty}.{operator} {})", self.float(ty, next))
            }
            14 => format!("({ty}.copysign {} {})", self.float(ty, next), self.float(ty, next)),
            15 => {
                format!("(select {} {} {})", self.float(ty, next), self.float(ty, next), self.condition(next))
            }
            16 => format!("(local.tee ${ty}{} {})", self.below(4), self.float(ty, next)),
            17 => format!("(call $mix_{ty} {} {})", self.float(ty, next), self.float(other, next)),
            18 if ty == "f64" => format!("(f64.promote_f32 {})", self.float(other, next)),
            18 => format!("(f32.demote_f64 {})", self.float(other, next)),
            19 if ty == "f64" => format!("(f64.reinterpret_i64 (i64.reinterpret_f64 {}))", self.float(ty, next)),
            19 => format!("(f32.reinterpret_i32 (i32.reinterpret_f32 {}))", self.float(ty, next)),
            20 => format!(
                "(if (result {ty}) {} (then {}) (else {}))",
                self.condition(next),
                self.float(ty, next),
                self.float(ty, next)
            ),
            _ => {
                let lanes = if ty == "f64" { "f64x2" } else { "f32x4" };
                format!("({lanes}.extract_lane {} {})", self.below(2), self.vector(next))
            }
        }
    }

    fn vector(&mut self, depth: u32) -> String {
        let next = depth.saturating_sub(1);
        let lanes = self.pick(&["f64x2", "f32x4"]);
        match if depth == 0 { self.below(2) } else { self.below(9) } {
            0 => format!("(local.get $v128{})", self.below(4)),
            1 => format!("(v128.load {})", self.address()),
            2 | 3 => {
                let operator = self.pick(&["add", "sub", "mul", "div", "min", "max", "pmin", "pmax"]);
                format!("({lanes}.{operator} {} {})", self.vector(next), self.vector(next))
            }
            4 => {
                let operator = self.pick(&["sqrt", "ceil", "neg", "abs", "nearest"]);
                format!("({lanes}.{operator} {})", self.vector(next))
            }
            5 => {
                let operator = self.pick(&["relaxed_madd", "relaxed_nmadd"]);
                format!("({lanes}.{operator} {} {} {})", self.vector(next), self.vector(next), self.vector(next))
            }
            6 => format!("(f64x2.splat {})", self.float("f64", next)),
            7 => format!("(f32x4.replace_lane 2 {} {})", self.vector(next), self.float("f32", next)),
            _ => {
                let operator = self.pick(&["f32x4.demote_f64x2_zero", "f64x2.promote_low_f32x4"]);
                format!("({operator} {})", self.vector(next))
            }
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        let ty = self.pick(&["f64", "f32"]);
        let operator = self.pick(&["lt", "gt", "le", "ge", "eq", "ne"]);
        format!("({ty}.{operator} {} {})", self.float(ty, depth), self.float(ty, depth))
    }

    fn statement(&mut self, depth: u32) {
        let ty = self.pick(&TYPES);
        let value = |writer: &mut Self| if ty == "v128" { writer.vector(3) } else { writer.float(ty, 4) };
        match if depth == 0 { self.below(7) } else { self.below(12) } {
            0..=3 => {
                let value = value(self);
                let line = format!("(local.set ${ty}{} {value})\n", self.below(4));
                self.text += &line;
            }
            4..=5 => {
                let (address, value) = (self.address(), value(self));
                self.text += &format!("({ty}.store {address} {value})\n");
            }
            6 => {
                let value = value(self);
                let then = self.pick(&["(drop)", "nop (drop) nop", "(drop) (br 0) (unreachable)"]);
                self.text += &format!("(block {value} {then})\n");
            }
            7..=9 if self.loops < 4 => {
                let counter = self.loops;
                self.loops += 1;
                let line = format!("(local.set $i{counter} (i32.const {}))\n(loop\n", 1 + self.below(9));
                self.text += &line;
                self.statements(depth - 1);
                self.text +=
                    &format!("(br_if 0 (local.tee $i{counter} (i32.sub (local.get $i{counter}) (i32.const 1)))))\n");
            }
            10 => {
                let condition = self.condition(2);
                self.text += &format!("(block (br_if 0 {condition})\n");
                self.statements(depth - 1);
                self.text += ")\n";
            }
            _ => {
                let length = self.pick(&["(i32.const 7)", "(i32.const 200)", "(local.get $i0)"]);
                self.text += &format!("(memory.copy (i32.const 64) (i32.const 512) {length})\n");
            }
        }
    }

    fn statements(&mut self, depth: u32) {
        for _ in 0..1 + self.below(5) {
            self.statement(depth);
        }
    }

    /// A module that computes, then prints all its memory and ends in one way or another.
    fn module(seed: u64) -> String {
        let mut writer = Self { random: ChaCha20Rng::seed_from_u64(seed), text: String::new(), loops: 0 };
        let locals: String = TYPES
            .iter()
            .flat_map(|ty| (0..4).map(move |index| format!("(local ${ty}{index} {ty})")))
            .chain((0..4).map(|index| format!("(local $i{index} i32)")))
            .collect();
        let mut functions = String::new();
        for (ty, other) in [("f64", "f32"), ("f32", "f64")] {
            // The function's own parameters are two of the locals that expressions read and write.
            let rest =
                locals.replace(&format!("(local ${ty}0 {ty})"), "").replace(&format!("(local ${other}0 {other})"), "");
            writer.text.clear();
            writer.loops = 4;
            writer.statement(0);
            let result = format!("({ty}.add (local.get ${ty}0) (local.get ${ty}1))");
            let result = if writer.below(2) == 0 { result } else { format!("(return (local.get ${ty}0))") };
            let body = writer.text.replace("(call $mix_", "(call $same_");
            functions += &format!(
                "(func $mix_{ty} (param ${ty}0 {ty}) (param ${other}0 {other}) (result {ty}) {rest} {body} {result})
                 (func $same_{ty} (param {ty} {other}) (result {ty}) ({ty}.neg (local.get 0)))\n"
            );
        }
        writer.text.clear();
        writer.loops = 0;
        for _ in 0..4 {
            writer.statements(3);
        }
        let values: String = ["f64", "f32"]
            .iter()
            .flat_map(|ty| (0..4).map(move |index| (ty, index)))
            .map(|(ty, index)| format!("({ty}.store (i32.const {}) (local.get ${ty}{index}))\n", 1024 + index * 8))
            .collect();
        let end = writer.pick(&["", "", "", "unreachable", "(drop (i32.div_s (i32.const 1) (i32.const 0)))"]);
        let data: String = (0..MEMORY)
            .map(|at| match (at % 16, writer.below(3)) {
                (7 | 15, 0) => "\\7f".to_owned(),
                (6 | 14, 0) => "\\f4".to_owned(),
                (3 | 11, 1) => "\\ff".to_owned(),
                _ => format!("\\{:02x}", writer.below(256)),
            })
            .collect();
        format!(
            r#"(module
              (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 1)
              (data (i32.const 0) "{data}")
              (data (i32.const 4096) "\00\00\00\00\00\08\00\00")
              {functions}
              (func (export "_start") {locals}
                {}
                {values}
                (drop (call $fd_write (i32.const 1) (i32.const 4096) (i32.const 1) (i32.const 4104)))
                {end}))"#,
            writer.text
        )
    }
}

#[test]
fn random_modules_give_the_same_either_way() {
    let (mut traps, mut outputs) = (0, std::collections::BTreeSet::new());
    for seed in 0..400 {
        let text = Writer::module(seed);
        let bench = Bench::wat(&text);
        let own = agree(&bench, &format!("seed {seed}: {text}"));
        traps += u32::from(own[2] == "trap");
        outputs.insert(own[0].to_string());
    }
    assert!(traps > 40, "{traps} modules trap");
    assert!(outputs.len() > 300, "{} different outputs", outputs.len());
}

#[test]
fn fuel_ends_at_the_same_place_either_way() {
    for seed in 0..12 {
        let bench = Bench::wat(&Writer::module(seed));
        let whole = agree(&bench, "whole")[4].as_u64().expect("a number");
        for fuel in (1..whole + 3).rev().step_by(1 + whole as usize / 40) {
            agree(&bench.clone().set("/job/limits/fuel", json!(fuel)), &format!("seed {seed}, fuel {fuel} of {whole}"));
        }
    }
}

#[test]
fn a_nan_of_the_programs_own_keeps_its_bits() {
    // A signalling NaN goes through locals, a loop, a block and a function, beside one from arithmetic.
    let text = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\10\00\00\00\28\00\00\00")
      (func $same (param f64) (result f64) (local.get 0))
      (func $grown (param $x f64) (param $rounds i32) (result f64)
        (block (loop
          (br_if 1 (i32.eqz (local.get $rounds)))
          (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
          (local.set $x (f64.add (local.get $x) (local.get $x)))
          (br 0)))
        (local.get $x))
      (func (export "_start") (local $own f64) (local $sum f64) (local $i i32)
        (local.set $own (f64.const -nan:0x4000000000123))
        (loop
          (local.set $sum (f64.add (local.get $sum) (f64.div (local.get $sum) (f64.const 0))))
          (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
        (f64.store (i32.const 16) (call $same (block (result f64) (local.get $own))))
        (f64.store (i32.const 24) (local.get $sum))
        (f64.store (i32.const 32) (f64.neg (local.get $sum)))
        (f64.store (i32.const 40) (call $grown (local.get $own) (i32.const 0)))
        (f64.store (i32.const 48) (call $grown (local.get $own) (i32.const 3)))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let mut expected = 0xfff4_0000_0000_0123_u64.to_le_bytes().to_vec();
    expected.extend(0x7ff8_0000_0000_0000_u64.to_le_bytes());
    expected.extend(0xfff8_0000_0000_0000_u64.to_le_bytes());
    expected.extend(0xfff4_0000_0000_0123_u64.to_le_bytes());
    expected.extend(0x7ff8_0000_0000_0000_u64.to_le_bytes());
    let bench = Bench::wat(text).file("out", expected).set("/claim/stdout", json!({ "artifact": "out" }));
    assert_eq!(bench.line(), "valid ok: the claim is what the job gives");
    agree(&bench, "own bits");
}

#[test]
fn a_function_too_large_to_rewrite_runs_all_the_same() {
    // 49,995 locals leave no room for ours.
    let text = format!(
        r#"(module (func (export "_start") (local {}) (local.set 49994 (f64.div (local.get 0) (f64.const 0)))))"#,
        "f64 ".repeat(49_995)
    );
    let bench = Bench::wat(&text);
    assert_eq!(bench.line(), "valid ok: the claim is what the job gives");
    assert_eq!(agree(&bench, "locals")[4], 5);
}
