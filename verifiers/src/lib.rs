//! Is the claimed result right? Re-execution, proofs, votes.
//!
//! A [`Request`] (INTERFACES, "Verification request and verdict") goes into a [`Service`], a [`Verdict`] comes out. This
//! crate has no network, no store and no async code: artifacts come through [`ArtifactSource`], out-of-process verifiers
//! through [`ExternalVerifier`]. It does not sign; the engine adds signer and signature.
//!
//! Start reading at [`Request::parse`], then [`Service::verify`], then the method that interests you: `reexecution`,
//! `proof`, `majority`, `aggregate`; two results are compared in `comparator`. Container jobs are in `container`.
//!
//! **Invariant:** `invalid` is said only of what any honest verifier would find; what this machine, its operator or the
//! world caused is `inconclusive`.
//! **Invariant:** the digest of a verdict depends on the request and the artifacts, never on time or machine.
//! **Invariant:** two results agree, differ or neither the same way whichever side is which, and no single sample within a
//! tolerance convicts.
//! **Invariant:** no job reaches a file, clock, random source or network of the host.
//!
//! # Verdict digest
//!
//! BLAKE3 `derive_key("tribunal.v1 verdict", preimage)`; the preimage ([`Verdict::preimage`]) is the RFC 8785 text of
//!
//! ```json
//! {"evidence": {…}, "reason": {"code": "…"}, "verdict": "valid"}
//! ```
//!
//! where `evidence` is the verdict's evidence without `verifier_version`, `wall_us`, `host`; without `own_outputs`,
//! `own_stdout`, `fuel_used` where the comparator is not exact; and without `parts` of a combined method, whose digests
//! stand in `of`. Integers above 2^53 are decimal strings. `claimed_outputs` and `claimed_stdout` are the addresses that
//! the request gives, `module`, `inputs` and `stdin` the BLAKE3 addresses of the bytes.
//!
//! # Reason codes
//!
//! | verdict | codes |
//! |---|---|
//! | valid | `ok` |
//! | invalid, re-execution | `exit-code-differs`, `termination-differs`, `trap`, `out-of-fuel`, `stdout-differs`, `output-differs`, `instruction-count`, `module-invalid` |
//! | invalid, re-execution of a claimed folder | `folder-differs`, `exit-code-differs`, `instruction-count` |
//! | invalid, proof | `proof-malformed`, `proof-invalid`, `proof-binding` |
//! | invalid, majority | `outvoted` |
//! | invalid, aggregate | `output-differs` |
//! | inconclusive, container jobs alone | `runtime-unavailable`, `image-invalid`, `image-unsupported`, `memory-limit`, `output-limit`, `not-deterministic` |
//! | inconclusive | `artifact-unavailable`, `unknown-runtime`, `wall-time`, `stack-exhausted`, `operator-limit`, `cancelled`, `executor-fault`, `job-malformed`, `comparator-invalid`, `key-malformed`, `unsupported-proof-system`, `no-quorum`, `tie`, `between-bands`, `other-environment`, `observation-malformed`, `verifier-unavailable`; a claimed folder: `no-own-folder`, `job-limit`, `host-dependent` |
//!
//! An out-of-process verifier has its own codes.
//!
//! # Comparators
//!
//! | `comparator.kind` | fields | defined in |
//! |---|---|---|
//! | `exact` | | |
//! | `numeric` | `relative`, `absolute`, `ulps` | `numeric` |
//! | `image` | `psnr_db_min` or `ssim_min` | `image` |
//! | `ignore_lines` | `patterns` | `comparator` |
//! | `norm` | `metric` (`l2`, `linf`), `accept` and `reject` with `relative`, `absolute`, `test` | `norm` |
//! | `topk` | `over` (`logits`, `ids`), `k`, `accept_overlap`, `reject_overlap`, `test` | `topk` |
//! | `toploc` | `topk`, `batch`, `accept` and `reject` with `exp_mismatches`, `mant_err_mean`, `mant_err_median`, `test` | `toploc` |
//!
//! The last three look at samples, each of which is near (accept), far (reject) or neither, and `test` says how many far ones
//! of how many convict: `{"alpha": "0.001", "beta": "0.01", "honest_rate": "0.01", "cheat_rate": "0.5"}` (`sequential`).
//! The samples of all files of a result count together, those of equal files too. What is neither is `between-bands`.
//!
//! # Environments
//!
//! `claim.environment` is an object of strings that says what the claim ran in: at most 16 entries, names of a-z, 0-9, `-`, `_`
//! and `.`, such as `device`, `driver`, `data-type`. It stands in the evidence as `claimed_environment`, and votes are counted
//! within the claim's own first (`majority`). Equal environments are equal in every entry.
//!
//! # Aggregates
//!
//! `{"kind": "aggregate", "function": "median", "observations": [{"source": "s1", "artifact": "s1.json"}, …]}`; further
//! functions are `trimmed-mean` with `trim`, `mad-outliers` with `threshold` (3.5) and `witnesses` (1), and `fedavg`, whose
//! observations have `weight` and `signature`. The claim has one output, the aggregate as JSON; no job is needed (`aggregate`).
//!
//! # Result folders
//!
//! `claim.folder` is the CID (version 0) of a folder of results, as marketplaces that run jobs in Bacalhau publish it; it
//! stands in place of `stdout` and `outputs`, and the comparator must be exact. Re-execution builds the same folder of its own
//! run: files `stdout`, `stderr` and `exitCode`, and for every output a folder named by its last segment (`result_folder`),
//! and compares. Evidence has `claimed_folder`, `own_folder` and, where the module returned without an exit code,
//! `own_folder_returned` with the -1 that Bacalhau's WASM executor writes then; either is a match.
//!
//! Who claims a folder ran the job elsewhere, under limits that are not the request's. So a run that was refused memory, bytes,
//! files or fuel, that traps, leaves links or does not fit this runtime convicts nobody, nor does one that asked for the time
//! or for random bytes, which are others there, nor any container, whose root, user and limits are others there. A folder that
//! is equal is valid whatever happened on the way.
//!
//! Apart from CIDs, the results of any job have one canonical digest, [`results_digest`]: BLAKE3 over the listing of their files.
//!
//! # Container jobs
//!
//! Profile `oci-1` (`oci` is the newest one). `job.module` is a tar archive of an OCI image layout 1.0.0; other files in it are
//! ignored. Index (at most four deep), manifest, configuration and layers must have the size and the SHA-256 that name them,
//! layers also their `diff_id`; exactly one image must be for this architecture. Layers are tar or tar+gzip.
//!
//! **What a job finds.** `args`, or without any the image's entry point and command; the job's `env` over the image's, in order of
//! names, with `HOME=/root` and Docker's `PATH` where neither says otherwise; the image's working folder. It is root of a user
//! namespace in which every file of the image is its own, pid 1, host name `tribunal`; images with another user are
//! unsupported. The root is read-only. It may write to `/tmp`, `/dev/shm`, to every output whose last name has no dot, and
//! to the folders of the others; what the image has there is there, too. Inputs are read-only. `/proc` and `/dev` are mounted, with null,
//! zero, full, random, urandom and a tty without terminal; `/sys` is not. Permissions and times are the image's, without setuid
//! and setgid; devices and pipes are left out.
//!
//! **What keeps it in.** Namespaces of its own for users, processes, mounts, network (with a loopback of its own alone), IPC, host
//! name and control groups; no capabilities; no new privileges; a list of system calls (`container/seccomp`); 512
//! processes; memory and swap together at most `memory_bytes`, in which what it writes counts. What it writes lies in one
//! file system in memory, files in whole pages.
//!
//! **What is said of it.** `invalid`, if two runs agree with each other in all that is claimed and neither agrees with the claim;
//! the second run is kept on one processor. Runs that disagree: `not-deterministic`. A kernel is no meter: whoever reaches
//! `memory_bytes` (`memory-limit`), `output_bytes` (`output-limit`), `wall_ms` or the operator's limits is inconclusive. An ending by signal
//! n is the exit code 128 + n. There is no fuel: `limits.fuel` means nothing, and a claimed `instruction_count` above 0 is
//! `invalid`, `instruction-count`, without a run. The digest of a verdict holds nothing of the runs. A result that depends on what
//! two runs on one machine share (the date, the kernel, the processor) does not belong into a deal of this profile.
//!
//! **Bounds.** 10 000 members of the layout, 128 layers, 200 000 members and 2 GiB unpacked of all layers, 100 times its packed
//! size for a gzip layer above 16 MiB, 64 folders deep, names of 255 bytes, paths of 2048, links of 40 hops. Absolute paths
//! and `..` in archives are refused, links are followed inside the image alone.
//!
//! It needs root, runc (Debian's 1.1.5 is tested), `unshare` and `mount` of util-linux, user namespaces, and control groups of either version with memory
//! and pids ([`Containers::probe`]). All that a job needs lies in one folder ([`Containers`]), which is empty afterwards: a guardian process removes what is there
//! when this process is killed, the next container job what is there when both are. The machine's mounts never change.
//!
//! # What could make two runs differ, and what closes it
//!
//! | source | closed by |
//! |---|---|
//! | clock | stands at 2000-01-01; monotonic and CPU clocks at 0; `poll_oneoff` returns at once; file times are 0 |
//! | randomness | ChaCha20 from a digest of module, arguments, environment, stdin and inputs, never from limits |
//! | NaN bits | results of arithmetic have the canonical NaN wherever their bits can be seen; the program's own bits stay (`canonical`) |
//! | relaxed SIMD | wasmtime's deterministic lowering, the same on every processor |
//! | memory growth | refused by the request's `memory_bytes` and the module's own maximum only; when the host has no memory there is no result |
//! | tables | 2^20 elements in all, part of the profile |
//! | stack | part of no result: a job that uses up the host's is inconclusive |
//! | host addresses | no function gives one; file ids are numbers of the job's own tree |
//! | folder order | byte order of names; descriptors: the lowest free number |
//! | files, environment, locale, time zone | only what the request names |
//! | threads | none: no shared memory, no atomics |
//! | fuel | wasmtime 48's operator costs and the prices of host calls; counted the same with and without rewriting |
//! | wall clock, operator's limits | part of no result: inconclusive |
//! | our compiler | an `invalid` stands only if the job, compiled by wasmtime alone, gives the same run again; else `executor-fault` |
//!
//! Compiled modules are kept in memory, by digest of their bytes and settings, never on a disk: there is no file to tamper with.
//!
//! # Artifacts
//!
//! A [`Reference`] is a file name, `blake3:…`, `sha256:…` or an IPFS CID: version 0 or 1, raw or dag-pb, SHA-256, in base58, base32
//! or base16, with or without `ipfs://`; a request with any other CID, or with a path inside a folder, is a bad request. Whatever
//! an [`ArtifactSource`] gives is checked before it is used: bytes against their address, every block against its CID
//! ([`Blocks::keep`]), and only blocks are kept that the CID asked for leads to. UnixFS files (raw and dag-pb leaves, bytes in
//! nodes, any layout), folders and their shards are read, within [`ARTIFACT_BYTES_MAX`], [`BLOCK_BYTES_MAX`] and bounds on nodes,
//! entries and depth; symbolic links, names that are not plain and sizes that do not fit are refused.
//!
//! [`FolderSource`] serves its files by name, address and CID, its folders by CID, and the blocks of CAR files in it. [`Cached`]
//! keeps on disk what another source gave, [`download`] is what fetches over a network that breaks off, and [`Chain`] goes on to
//! the next source where one has nothing, fails or lies.
//!
//! An input of a job may be the CID of a folder: its files stand below the input's path (`input_folder`); one with an empty folder
//! in it is `job-malformed`. Elsewhere a folder is no artifact: `artifact-unavailable`. A claim that is a CID is what a run gives
//! if the run's bytes have it under one of `ipfs add`'s [`Layout`]s; a raw one that they do not have is wrong, any other is
//! fetched and compared.
//!
//! # Choices where the protocol is silent
//!
//! - A module that does not validate in its profile, imports what is not WASI preview 1, or has no `_start`, has no result
//!   at all: any claim about it is `invalid`, `module-invalid`.
//! - A module whose first memory is beyond `memory_bytes` traps before its first instruction.
//! - A WASI call costs 100 fuel and one for every byte moved; its time is fixed at 2000-01-01, its random bytes are ChaCha20
//!   from a digest of module, arguments, environment and inputs.
//! - With the exact comparator a claimed digest is compared as it is: whoever serves nothing is still caught.
//! - Where one claimed file cannot be fetched and another one differs, the difference decides.
//! - A field that one vote claims and another does not is a difference between the two.
//! - `ignore_lines` drops the lines that match any pattern on both sides and compares what is left.
//! - A combined method asks all its parts; its code is that of the first part with the deciding verdict.

mod aggregate;
mod artifacts;
mod canonical;
mod car;
mod cid;
mod comparator;
mod container;
mod filesystem;
mod image;
mod input_folder;
pub mod job_description;
mod json;
mod limiter;
mod majority;
mod modules;
mod norm;
mod numeric;
mod proof;
mod reexecution;
mod request;
mod result_folder;
mod samples;
mod sequential;
mod service;
mod topk;
mod toploc;
mod unixfs;
mod varint;
mod verdict;
mod wasi;
mod wasm;

pub use aggregate::{Function, Observation};
pub use artifacts::{
    ARTIFACT_BYTES_MAX, ArtifactFault, ArtifactSource, Chain, FolderSource, MemorySource, address_like,
    cache::{Cache, Cached},
    download::{Answer, Body, Download, NoAnswer, Piece, Remote, content_range, download},
    fetch_content, file_of,
};
pub use car::{CarFault, CarReader};
pub use cid::{AnyCid, AnyCidError, Cid, CidError, Codec, Folder, FolderProblem, Layout};
pub use comparator::{Comparison, compare};
pub use container::Containers;
pub use proof::{Curve, ProofProblem, verify_batch};
pub use reexecution::RUNTIMES;
pub use request::{
    BadRequest, Claim, Claimed, ClaimedOutput, Job, JobInput, Method, Needs, ProofMethod, REQUEST_BYTES_MAX, Reference,
    Request, VOTES_MAX, Vote,
};
pub use result_folder::results_digest;
pub use service::{ExternalAnswer, ExternalVerifier, OperatorLimits, Service};
pub use unixfs::tree::{BLOCK_BYTES_MAX, Blocks, Content, Tree};
pub use verdict::{Evidence, Reason, Verdict, verdict_digest};

/// A verification fails only because the request is bad; every other failure is an inconclusive verdict.
pub type VerifyError = BadRequest;

/// Version of this crate, as it stands in evidence.
pub const VERIFIER_VERSION: &str = env!("CARGO_PKG_VERSION");
