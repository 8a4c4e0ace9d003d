//! What a job's module may have of the host's memory.

use wasmtime::ResourceLimiter;

use crate::wasi::OperatorStop;

/// Elements of all tables together.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[error("the host has no memory: {0}")]
struct HostMemory(String);

/// Bounds linear memory and tables.
pub(crate) struct Limiter {
    pub(crate) memory_bytes_max: u64,
    /// The operator allows fewer bytes than the deal.
    pub(crate) operator_bytes_max: Option<u64>,
    pub(crate) table_elements: usize,
    /// What the module needs at once is beyond the limits.
    pub(crate) refused_at_start: bool,
    /// A limit that is not the module's own refused it something.
    pub(crate) refused: bool,
    pub(crate) started: bool,
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
