//! Compiles modules and keeps them: in memory, by the digest of their bytes, one cache for one set of settings.
//!
//! Nothing that was compiled is ever read from a disk. wasmtime trusts such bytes like its own code, so whoever can write
//! the file owns the process; compiling again after a restart is the smaller price.

use std::sync::{LazyLock, Mutex, PoisonError};

use tribunal_events::ContentAddress;
use wasmtime::{Config, Engine, InstancePre, Linker, Module};

use crate::{
    canonical,
    wasi::{self, Host},
    wasm::{NoRun, WASM_STACK_BYTES, first_line},
};

/// Bytes of a module at most that this verifier compiles.
const MODULE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Compiled modules that are kept, and bytes of their code together.
const CACHED_MODULES_MAX: usize = 16;
const CACHED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How modules are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// The profile; modules are rewritten first where they can be (`canonical`).
    Profile,
    /// The profile by wasmtime's own means alone: what the rewritten module is measured against.
    Reference,
    /// No fuel and no canonical NaNs: the peer of benches.
    Plain,
}

struct Compiler {
    engine: Engine,
    linker: Linker<Host>,
}

impl Compiler {
    fn new(settings: Settings) -> Self {
        let mut config = Config::new();
        config
            .consume_fuel(settings != Settings::Plain)
            .cranelift_nan_canonicalization(settings == Settings::Reference)
            .relaxed_simd_deterministic(true)
            .wasm_simd(true)
            .wasm_relaxed_simd(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_extended_const(true)
            .wasm_tail_call(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_custom_page_sizes(false)
            .wasm_wide_arithmetic(false)
            .wasm_backtrace_max_frames(None)
            .max_wasm_stack(WASM_STACK_BYTES);
        if settings == Settings::Profile {
            config.operator_cost(canonical::operator_cost()).wasm_branch_hinting(true);
        }
        let engine = Engine::new(&config).expect("these settings fit every supported machine");
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker).expect("no function is defined twice");
        Self { engine, linker }
    }

    fn compile(&self, bytes: &[u8]) -> Result<Module, NoRun> {
        Module::from_binary(&self.engine, bytes).map_err(|error| NoRun::fault(first_line(&format!("{error:#}"))))
    }
}

/// A module ready to start.
#[derive(Clone)]
struct Ready {
    address: ContentAddress,
    instance: InstancePre<Host>,
    bytes: usize,
}

/// The modules of one set of settings.
pub(crate) struct Modules {
    settings: Settings,
    compiler: Compiler,
    /// For what cannot be rewritten.
    reference: LazyLock<Compiler>,
    /// The most recently used last.
    ready: Mutex<Vec<Ready>>,
}

impl Modules {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            compiler: Compiler::new(settings),
            reference: LazyLock::new(|| Compiler::new(Settings::Reference)),
            ready: Mutex::default(),
        }
    }

    /// Whether jobs have fuel and limits.
    pub(crate) fn metered(&self) -> bool {
        self.settings != Settings::Plain
    }

    /// The module of these bytes, whose BLAKE3 address this is, compiled and linked.
    pub(crate) fn get(&self, address: ContentAddress, bytes: &[u8]) -> Result<InstancePre<Host>, NoRun> {
        let lock = || self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut ready = lock();
            if let Some(index) = ready.iter().position(|known| known.address == address) {
                let entry = ready.remove(index);
                ready.push(entry.clone());
                return Ok(entry.instance);
            }
        }
        if bytes.len() > MODULE_BYTES_MAX {
            let detail = format!("the module has {} bytes, more than {MODULE_BYTES_MAX}", bytes.len());
            return Err(NoRun::Inconclusive { code: "operator-limit", detail });
        }
        let entry = self.compile(address, bytes)?;
        let mut ready = lock();
        ready.retain(|known| known.address != address);
        ready.push(entry.clone());
        while ready.len() > CACHED_MODULES_MAX
            || (ready.len() > 1 && ready.iter().map(|known| known.bytes).sum::<usize>() > CACHED_BYTES_MAX)
        {
            ready.remove(0);
        }
        Ok(entry.instance)
    }

    fn compile(&self, address: ContentAddress, bytes: &[u8]) -> Result<Ready, NoRun> {
        let invalid = |error: wasmtime::Error| NoRun::ModuleInvalid(first_line(&format!("{error:#}")));
        Module::validate(&self.compiler.engine, bytes).map_err(invalid)?;
        // It is valid, so a failure now is the compiler's.
        let (compiler, module) = match self.settings {
            Settings::Profile => match canonical::rewrite(bytes).and_then(|new| self.compiler.compile(&new).ok()) {
                Some(module) => (&self.compiler, module),
                None => (&*self.reference, self.reference.compile(bytes)?),
            },
            Settings::Reference | Settings::Plain => (&self.compiler, self.compiler.compile(bytes)?),
        };
        let starts = module.get_export("_start").and_then(|export| export.func().cloned());
        if !starts.is_some_and(|start| start.params().len() == 0 && start.results().len() == 0) {
            return Err(NoRun::ModuleInvalid(
                "the module exports no function _start without parameters and results".into(),
            ));
        }
        let size = module.image_range();
        let instance = compiler.linker.instantiate_pre(&module).map_err(invalid)?;
        Ok(Ready { address, instance, bytes: size.end as usize - size.start as usize })
    }
}
