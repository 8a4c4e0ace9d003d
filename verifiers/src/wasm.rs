//! Runs a job's module: the same module and inputs give the same result and the same fuel everywhere.
//!
//! Profile `wasm-1`: WebAssembly 2.0 with extended constants and deterministic relaxed SIMD; no threads, no 64-bit or
//! second memory, no tail calls, no garbage collection, no exceptions. NaNs are canonical. Fuel is wasmtime 48's operator
//! costs plus the price of host calls (`wasi`). Epochs only let the wall clock stop a run; they are no meter.
//!
//! **Invariant:** what the wall clock, the host's stack or memory, or the operator's limits stop has no result.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use serde_json::json;
use tribunal_events::{ContentAddress, Termination};
use wasmtime::{Config, Engine, InstancePre, Linker, Module, ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::{
    Job, OperatorLimits,
    filesystem::FileSystem,
    request::write::canonical_text,
    result_folder::{self, OwnFolder},
    wasi::{self, Exit, Host, NoMemory, OperatorStop},
};

/// The newest profile.
pub(crate) const PROFILE: &str = "wasm-1";
/// Bytes of a module at most that this verifier compiles.
const MODULE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Compiled modules that are kept.
const CACHED_MODULES_MAX: usize = 16;
/// Elements of all tables together.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;
/// Stack that a job's functions may use.
const WASM_STACK_BYTES: usize = 1024 * 1024;
/// Stack of the thread that compiles and runs.
const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;
/// How often the wall clock is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What a job gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) termination: Termination,
    /// 0 unless it ended by itself.
    pub(crate) exit_code: i32,
    /// Which trap it was.
    pub(crate) trap: Option<String>,
    pub(crate) fuel_used: u64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) outputs: BTreeMap<String, Vec<u8>>,
    /// The job asked for the time or for random bytes.
    pub(crate) asked_the_host: bool,
    /// A limit of the job or of this verifier refused it something, and it went on.
    pub(crate) refused: Option<&'static str>,
    /// Where it was asked for and the job ended by itself: its result folder, or why it has none.
    pub(crate) folder: Option<Result<OwnFolder, String>>,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum NoRun {
    /// The module is none of the profile: nobody can have run it.
    ModuleInvalid(String),
    /// We could not tell.
    Inconclusive { code: &'static str, detail: String },
}

impl NoRun {
    fn fault(detail: impl Into<String>) -> Self {
        Self::Inconclusive { code: "executor-fault", detail: detail.into() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the wall clock stopped the job")]
struct WallTime;

#[derive(Debug, thiserror::Error)]
#[error("the host has no memory: {0}")]
struct HostMemory(String);

/// Bounds linear memory and tables.
pub(crate) struct Limiter {
    memory_bytes_max: u64,
    /// The operator allows fewer bytes than the deal.
    operator_bytes_max: Option<u64>,
    table_elements: usize,
    /// What the module needs at once is beyond the limits.
    refused_at_start: bool,
    /// A limit that is not the module's own refused it something.
    refused: bool,
    started: bool,
}

impl Limiter {
    fn refuse(&mut self) -> bool {
        self.refused_at_start |= !self.started;
        false
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) || desired as u64 > 1 << 32 {
            return Ok(self.refuse());
        }
        if desired as u64 > self.memory_bytes_max {
            self.refused = true;
            return Ok(self.refuse());
        }
        match self.operator_bytes_max {
            Some(most) if desired as u64 > most => Err(OperatorStop { what: "memory bytes", most }.into()),
            _ => Ok(true),
        }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(HostMemory(error.to_string()).into())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.table_elements - current.min(self.table_elements) + desired;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(self.refuse());
        }
        if all > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Ok(self.refuse());
        }
        self.table_elements = all;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(HostMemory(error.to_string()).into())
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        100
    }

    fn memories(&self) -> usize {
        1
    }
}

/// The engine of profile `wasm-1` and the modules it compiled.
pub(crate) struct Wasm {
    engine: Engine,
    linker: Linker<Host>,
    /// Whether this is the profile, with fuel and limits; else the peer that benches compare with.
    metered: bool,
    /// By digest, the most recently used last.
    compiled: Mutex<Vec<(ContentAddress, InstancePre<Host>)>>,
}

/// What a run starts from.
pub(crate) struct Inputs {
    pub(crate) module: Arc<[u8]>,
    pub(crate) stdin: Option<Arc<[u8]>>,
    /// In the order of the job's inputs.
    pub(crate) files: Vec<Arc<[u8]>>,
}

impl Wasm {
    pub(crate) fn new() -> Self {
        Self::with(true)
    }

    /// Plain wasmtime with the same host functions: no fuel, no limits, no canonical NaNs. What benches compare with.
    pub(crate) fn plain() -> Self {
        Self::with(false)
    }

    fn with(metered: bool) -> Self {
        let mut config = Config::new();
        config
            .consume_fuel(metered)
            .epoch_interruption(metered)
            .cranelift_nan_canonicalization(metered)
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
        let engine = Engine::new(&config).expect("these settings fit every supported machine");
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker).expect("no function is defined twice");
        Self { engine, linker, metered, compiled: Mutex::default() }
    }

    /// Runs a job within the smaller of the deal's and the operator's limits. `folder`: its result folder is wanted, too.
    pub(crate) fn run(
        &self,
        job: &Job,
        inputs: &Inputs,
        operator: &OperatorLimits,
        folder: bool,
    ) -> Result<Run, NoRun> {
        let (done, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            let work = move || {
                // A bug of the compiler must not end the service; it says nothing about the job.
                let result = catch_unwind(AssertUnwindSafe(|| self.compile_and_run(job, inputs, operator, folder)));
                let _ = done.send(result.unwrap_or_else(|_| Err(NoRun::fault("the executor panicked"))));
            };
            let thread = std::thread::Builder::new().name("job".into()).stack_size(THREAD_STACK_BYTES);
            if let Err(error) = thread.spawn_scoped(scope, work) {
                return Err(NoRun::fault(format!("no thread could be started: {error}")));
            }
            // This thread is the watchdog: each tick makes running jobs look at their own deadline.
            loop {
                match ended.recv_timeout(TICK) {
                    Ok(result) => return result,
                    Err(mpsc::RecvTimeoutError::Timeout) => self.engine.increment_epoch(),
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(NoRun::fault("the executor ended without an answer"));
                    }
                }
            }
        })
    }

    fn compile(&self, bytes: &[u8]) -> Result<InstancePre<Host>, NoRun> {
        let address = ContentAddress::of(bytes);
        let lock = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut compiled = lock();
            if let Some(index) = compiled.iter().position(|(known, _)| *known == address) {
                let entry = compiled.remove(index);
                compiled.push(entry.clone());
                return Ok(entry.1);
            }
        }
        if bytes.len() > MODULE_BYTES_MAX {
            let detail = format!("the module has {} bytes, more than {MODULE_BYTES_MAX}", bytes.len());
            return Err(NoRun::Inconclusive { code: "operator-limit", detail });
        }
        let invalid = |error: wasmtime::Error| NoRun::ModuleInvalid(first_line(&format!("{error:#}")));
        Module::validate(&self.engine, bytes).map_err(invalid)?;
        // It is valid, so a failure now is the compiler's.
        let module = Module::from_binary(&self.engine, bytes)
            .map_err(|error| NoRun::fault(first_line(&format!("{error:#}"))))?;
        let starts = module.get_export("_start").and_then(|export| export.func().cloned());
        if !starts.is_some_and(|start| start.params().len() == 0 && start.results().len() == 0) {
            return Err(NoRun::ModuleInvalid(
                "the module exports no function _start without parameters and results".into(),
            ));
        }
        let ready = self.linker.instantiate_pre(&module).map_err(invalid)?;
        let mut compiled = lock();
        if compiled.len() >= CACHED_MODULES_MAX {
            compiled.remove(0);
        }
        compiled.push((address, ready.clone()));
        Ok(ready)
    }

    fn compile_and_run(
        &self,
        job: &Job,
        inputs: &Inputs,
        operator: &OperatorLimits,
        folder: bool,
    ) -> Result<Run, NoRun> {
        let ready = self.compile(&inputs.module)?;
        let limits = &job.limits;
        let output_bytes_max = limits.output_bytes.min(operator.output_bytes_max);
        let malformed = |detail| NoRun::Inconclusive { code: "job-malformed", detail };
        let fs = FileSystem::new(job, &inputs.files, output_bytes_max).map_err(malformed)?;
        let env = job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let stdin = inputs.stdin.clone().unwrap_or_else(|| Arc::new([]));
        let limiter = Limiter {
            memory_bytes_max: limits.memory_bytes,
            operator_bytes_max: Some(operator.memory_bytes_max).filter(|most| *most < limits.memory_bytes),
            table_elements: 0,
            refused_at_start: false,
            refused: false,
            started: false,
        };
        let mut host = Host::new(fs, job.args.clone(), env, stdin, seed(job, inputs), limiter);
        host.output_stop = Some(output_bytes_max).filter(|most| *most < limits.output_bytes);
        let mut store = Store::new(&self.engine, host);
        let fault = |error: wasmtime::Error| NoRun::fault(error.to_string());
        let fuel = limits.fuel.min(operator.fuel_max);
        if self.metered {
            store.set_fuel(fuel).map_err(fault)?;
            store.limiter(|host| &mut host.limiter);
            let wall_ms = limits.wall_ms.min(operator.wall_ms_max);
            let deadline = Instant::now().checked_add(Duration::from_millis(wall_ms));
            store.set_epoch_deadline(1);
            store.epoch_deadline_callback(move |_| match deadline {
                Some(deadline) if Instant::now() >= deadline => Err(WallTime.into()),
                _ => Ok(UpdateDeadline::Continue(1)),
            });
        }
        let ended = ready.instantiate(&mut store).and_then(|instance| {
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            store.data_mut().limiter.started = true;
            start.call(&mut store, ())
        });
        let fuel_used = if self.metered { fuel - store.get_fuel().map_err(fault)? } else { 0 };
        let returned = ended.is_ok();
        let (termination, exit_code, trap) = match ended {
            Ok(()) => (Termination::Exit, 0, None),
            Err(error) => self.ending(&error, job, operator, store.data())?,
        };
        let host = store.into_data();
        let refused = match () {
            () if host.limiter.refused => Some("memory"),
            () if host.fs.full => Some("output bytes"),
            () if host.fs.crowded || host.out_of_descriptors => Some("files"),
            () => None,
        };
        let folder = (folder && termination == Termination::Exit)
            .then(|| result_folder::own(&host.fs, &job.outputs, exit_code, returned));
        Ok(Run {
            termination,
            exit_code,
            trap,
            fuel_used,
            asked_the_host: host.asked_the_host,
            refused,
            folder,
            outputs: host.fs.collect(&job.outputs),
            stdout: host.fs.stdout,
        })
    }

    /// Tells a job's own ending from one that we caused.
    fn ending(
        &self,
        error: &wasmtime::Error,
        job: &Job,
        operator: &OperatorLimits,
        host: &Host,
    ) -> Result<(Termination, i32, Option<String>), NoRun> {
        let inconclusive = |code, detail: String| Err(NoRun::Inconclusive { code, detail });
        if let Some(Exit(code)) = error.downcast_ref() {
            return Ok((Termination::Exit, *code, None));
        }
        if let Some(stop) = error.downcast_ref::<OperatorStop>() {
            return inconclusive("operator-limit", stop.to_string());
        }
        if error.downcast_ref::<WallTime>().is_some() {
            return if operator.wall_ms_max < job.limits.wall_ms {
                let detail = format!("the job still ran after {} ms, which this operator allows", operator.wall_ms_max);
                inconclusive("operator-limit", detail)
            } else {
                inconclusive("wall-time", format!("the job still ran after {} ms", job.limits.wall_ms))
            };
        }
        if error.downcast_ref::<NoMemory>().is_some() {
            return Ok((Termination::Trap, 0, Some(NoMemory.to_string())));
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) if operator.fuel_max < job.limits.fuel => {
                let detail = format!("the fuel of {} that this operator allows is used up", operator.fuel_max);
                inconclusive("operator-limit", detail)
            }
            Some(Trap::OutOfFuel) => Ok((Termination::OutOfFuel, 0, None)),
            Some(Trap::StackOverflow) => inconclusive("stack-exhausted", "the job used up the host's stack".into()),
            Some(Trap::Interrupt) => inconclusive("wall-time", "the job was interrupted".into()),
            Some(trap) => Ok((Termination::Trap, 0, Some(trap.to_string()))),
            None if host.limiter.refused_at_start => {
                Ok((Termination::Trap, 0, Some("the module needs more memory at once than the job may have".into())))
            }
            None => Err(NoRun::fault(first_line(&format!("{error:#}")))),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// What a job's random bytes follow from: everything that goes into it, and none of its limits.
fn seed(job: &Job, inputs: &Inputs) -> [u8; 32] {
    let address = |bytes: &Arc<[u8]>| ContentAddress::of(bytes).to_string();
    let files = job.inputs.iter().zip(&inputs.files).map(|(input, bytes)| (input.path.clone(), address(bytes)));
    let all = json!({
        "runtime": PROFILE,
        "module": address(&inputs.module),
        "args": job.args,
        "env": job.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        "stdin": inputs.stdin.as_ref().map(address),
        "inputs": files.collect::<BTreeMap<_, _>>(),
    });
    blake3::derive_key("tribunal.v1 job random", canonical_text(&all).as_bytes())
}
