//! Runs a job's module: the same module and inputs give the same result and the same fuel everywhere.
//!
//! Profile `wasm-1`: WebAssembly 2.0 with extended constants and deterministic relaxed SIMD; no threads, no 64-bit or
//! second memory, no tail calls, no garbage collection, no exceptions. NaNs are canonical. Fuel is wasmtime 48's operator
//! costs plus the price of host calls (`wasi`). A run is left every so much fuel to look at the wall clock.
//!
//! **Invariant:** what the wall clock, the host's stack or memory, or the operator's limits stop has no result.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use serde_json::json;
use tribunal_events::{ContentAddress, Termination};
use wasmtime::{InstancePre, Store, Trap};

use crate::{
    Job, OperatorLimits,
    filesystem::FileSystem,
    limiter::Limiter,
    modules::{Modules, Settings},
    request::write::canonical_text,
    result_folder::{self, OwnFolder},
    wasi::{Exit, FUEL_INTERVAL, Host, NoMemory, OperatorStop, WallTime},
};

/// The newest profile.
pub(crate) const PROFILE: &str = "wasm-1";
/// Stack that a job's functions may use.
pub(crate) const WASM_STACK_BYTES: usize = 1024 * 1024;
/// Stack of the thread that compiles and runs.
const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;

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
    pub(crate) fn fault(detail: impl Into<String>) -> Self {
        Self::Inconclusive { code: "executor-fault", detail: detail.into() }
    }
}

/// Runs jobs in profile `wasm-1`.
pub(crate) struct Wasm {
    modules: Modules,
}

/// What a run starts from.
pub(crate) struct Inputs {
    pub(crate) module: Arc<[u8]>,
    /// The module's BLAKE3 address.
    pub(crate) module_address: ContentAddress,
    pub(crate) stdin: Option<Arc<[u8]>>,
    /// In the order of the job's inputs.
    pub(crate) files: Vec<Arc<[u8]>>,
    /// Set when nobody wants to know any more.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl Wasm {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { modules: Modules::new(settings) }
    }

    /// Runs a job within the smaller of the deal's and the operator's limits. `folder`: its result folder is wanted, too.
    pub(crate) fn run(
        &self,
        job: &Job,
        inputs: &Inputs,
        operator: &OperatorLimits,
        folder: bool,
    ) -> Result<Run, NoRun> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("job".into()).stack_size(THREAD_STACK_BYTES);
            match thread.spawn_scoped(scope, || self.compile_and_run(job, inputs, operator, folder)) {
                // A bug of the compiler must not end the service; it says nothing about the job.
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(NoRun::fault("the executor panicked"))),
                Err(error) => Err(NoRun::fault(format!("no thread could be started: {error}"))),
            }
        })
    }

    fn compile_and_run(
        &self,
        job: &Job,
        inputs: &Inputs,
        operator: &OperatorLimits,
        folder: bool,
    ) -> Result<Run, NoRun> {
        let ready = self.modules.get(inputs.module_address, &inputs.module)?;
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
        let wall_ms = limits.wall_ms.min(operator.wall_ms_max);
        host.stop = inputs.stop.clone();
        host.deadline = Instant::now().checked_add(Duration::from_millis(wall_ms));
        let mut store = Store::new(ready.module().engine(), host);
        let fault = |error: wasmtime::Error| NoRun::fault(error.to_string());
        let fuel = limits.fuel.min(operator.fuel_max);
        let (ended, fuel_used) = if self.modules.metered() {
            store.limiter(|host| &mut host.limiter);
            store.set_fuel(fuel).map_err(fault)?;
            store.fuel_async_yield_interval(Some(FUEL_INTERVAL)).map_err(fault)?;
            let ended = watched(&mut store, &ready);
            (ended, fuel - store.get_fuel().map_err(fault)?)
        } else {
            let ended = ready.instantiate(&mut store).and_then(|instance| {
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call(&mut store, ())
            });
            (ended, 0)
        };
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
            if host.is_stopped() {
                return inconclusive("cancelled", "nobody wants to know any more".into());
            }
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

/// Runs a module to its end. Every so much fuel it comes back, and the clock is looked at.
fn watched(store: &mut Store<Host>, ready: &InstancePre<Host>) -> wasmtime::Result<()> {
    let instance = to_the_end(store, |store| Box::pin(ready.instantiate_async(store)))?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    store.data_mut().limiter.started = true;
    to_the_end(store, |store| Box::pin(start.call_async(store, ())))
}

/// Polls until there is a result or the job's time is over; dropping the future then ends the job.
fn to_the_end<'a, T>(
    store: &'a mut Store<Host>,
    run: impl FnOnce(&'a mut Store<Host>) -> Pin<Box<dyn Future<Output = wasmtime::Result<T>> + 'a>>,
) -> wasmtime::Result<T> {
    let (deadline, stop) = (store.data().deadline, store.data().stop.clone());
    let is_stopped = || stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
    let mut running = run(store);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match running.as_mut().poll(&mut context) {
            Poll::Ready(result) => return result,
            Poll::Pending if is_stopped() || deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Err(WallTime.into());
            }
            Poll::Pending => {}
        }
    }
}

pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// What a job's random bytes follow from: everything that goes into it, and none of its limits.
fn seed(job: &Job, inputs: &Inputs) -> [u8; 32] {
    let address = |bytes: &Arc<[u8]>| ContentAddress::of(bytes).to_string();
    let files = job.inputs.iter().zip(&inputs.files).map(|(input, bytes)| (input.path.clone(), address(bytes)));
    let all = json!({
        "runtime": PROFILE,
        "module": inputs.module_address.to_string(),
        "args": job.args,
        "env": job.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        "stdin": inputs.stdin.as_ref().map(address),
        "inputs": files.collect::<BTreeMap<_, _>>(),
    });
    blake3::derive_key("tribunal.v1 job random", canonical_text(&all).as_bytes())
}
