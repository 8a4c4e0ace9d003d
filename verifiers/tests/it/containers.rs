//! Container jobs: what they give, what they cannot reach, what stops them, and that nothing is left of them.
//!
//! They need root, runc and gcc (Debian: runc, g++). Where the tests do not run as root every job must be inconclusive,
//! `runtime-unavailable`, and that is what is tested then.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tempfile::TempDir;
use tribunal_verifiers::{Containers, MemorySource, OperatorLimits, Request, Service, Verdict};

use crate::bench::line;
use image::Image;

pub mod image;
mod images;
mod isolation;
mod leftovers;

/// One job on one image, with a folder for containers of its own.
pub struct Container {
    pub source: MemorySource,
    pub request: Value,
    pub limits: OperatorLimits,
    pub containers: Containers,
    folder: TempDir,
}

impl Container {
    pub fn new(image: &Image, args: &[&str]) -> Self {
        let mut source = MemorySource::new();
        source.add_file("image.tar", image.bytes());
        let folder = tempfile::tempdir().expect("a folder");
        // Jobs run as another user, who must come through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("our own folder");
        let request = json!({
            "method": { "kind": "reexecution" },
            "job": {
                "runtime": "oci-1",
                "module": "image.tar",
                "args": args,
                "outputs": ["/out"],
                "limits": { "fuel": 1, "memory_bytes": 64 << 20, "output_bytes": 1 << 20, "wall_ms": 60_000 },
            },
            "claim": { "exit_code": 0 },
        });
        let containers = Containers::new("runc", folder.path().join("containers"));
        Self { source, request, limits: OperatorLimits::default(), containers, folder }
    }

    pub fn probe(args: &[&str]) -> Self {
        let words: Vec<_> = std::iter::once("/probe").chain(args.iter().copied()).collect();
        Self::new(&Image::probe(), &words)
    }

    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let object = self.request.pointer_mut(parent).expect("an object").as_object_mut().expect("an object");
        object.insert(name.into(), value);
        self
    }

    pub fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        self.source.add_file(name, bytes);
        self
    }

    /// Claims this standard output.
    pub fn says(self, text: &str) -> Self {
        self.file("stdout", text.as_bytes()).set("/claim/stdout", json!({ "artifact": "stdout" }))
    }

    pub fn base(&self) -> PathBuf {
        self.folder.path().join("containers")
    }

    pub fn verify(&self) -> Verdict {
        let verdict = self.verify_only();
        self.nothing_is_left();
        verdict
    }

    fn verify_only(&self) -> Verdict {
        let service = Service::new(self.limits, Vec::new()).with_containers(self.containers.clone());
        let request = Request::parse(&self.request.to_string()).expect("a good request");
        service.verify_from(&request, &self.source).expect("files that are there")
    }

    pub fn line(&self) -> String {
        line(&Ok(self.verify()))
    }

    fn clone_with_claim(&self, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("our own folder");
        let containers = Containers::new("runc", folder.path().join("containers"));
        let (source, request) = (self.source.clone(), self.request.clone());
        Self { source, request, limits: self.limits, containers, folder }.says(text)
    }

    /// Whatever happened, the folder is empty but for the lock.
    pub fn nothing_is_left(&self) {
        let entries = fs::read_dir(self.base()).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
        assert!(names.is_empty(), "{names:?} is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&*self.base().to_string_lossy()), "a mount is left");
    }

    /// Compares the verdict; without root it says that there is no runtime.
    pub fn check(&self, expected: Expect) {
        self.check_line(|line| expected.assert_eq(line));
    }

    /// The job says exactly this.
    pub fn hears(self, text: &str) {
        self.says(text).check(expect!["valid ok: the claim is what the job gives"]);
    }

    /// The verdict begins like this.
    pub fn begins(&self, start: &str) {
        self.check_line(|line| {
            assert!(line.starts_with(start), "{line}\nshould begin with\n{start}\n{}", self.request)
        });
    }

    fn check_line(&self, look: impl FnOnce(&str)) {
        let line = self.line();
        if is_root() {
            look(&line);
        } else {
            assert!(line.starts_with("inconclusive runtime-unavailable: only root"), "{line}; apt-get install runc");
        }
    }
}

/// Whether these tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_true_claim_is_valid() {
    let job = Container::probe(&["write", "/out/a.txt", "one", "/out/b", "two"]).says("written\n");
    let outputs = json!([{ "path": "/out/a.txt", "artifact": "a" }, { "path": "/out/b", "artifact": "b" }]);
    let job = job.file("a", b"one").file("b", b"two").set("/claim/outputs", outputs);
    job.check(expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn what_two_runs_deny_is_invalid() {
    let job = || Container::probe(&["write", "/out/a.txt", "one"]);
    job().says("lie\n").check(expect!["invalid stdout-differs: stdout: line 1: expected written, claimed lie"]);
    job()
        .file("a", b"two")
        .set("/claim/outputs", json!([{ "path": "/out/a.txt", "artifact": "a" }]))
        .check(expect!["invalid output-differs: /out/a.txt: line 1: expected one, claimed two"]);
    job()
        .set("/claim/outputs", json!([]))
        .check(expect!["invalid output-differs: /out/a.txt: produced, but not claimed"]);
    Container::probe(&["exit", "3"]).check(expect!["invalid exit-code-differs: exit code: expected 3, claimed 0"]);
    job()
        .set("/claim", json!({ "termination": "trap" }))
        .check(expect!["invalid termination-differs: the job exits with 0, the claim says that it traps"]);
}

#[test]
fn a_result_that_changes_from_run_to_run_convicts_nobody() {
    Container::probe(&["nanoseconds"])
        .says("lie\n")
        .begins("inconclusive not-deterministic: two runs here differ from each other: stdout: line 1");
    // What the claim does not name may change.
    Container::probe(&["nanoseconds"])
        .set("/claim/exit_code", json!(1))
        .check(expect!["invalid exit-code-differs: exit code: expected 0, claimed 1"]);
}

#[test]
fn the_second_run_has_one_processor() {
    let processors = std::thread::available_parallelism().expect("processors").get();
    let job = Container::probe(&["processors"]);
    job.clone_with_claim("lie\n").begins(if processors > 1 {
        "inconclusive not-deterministic: two runs here differ from each other: stdout: line 1"
    } else {
        "invalid stdout-differs"
    });
    job.hears(&format!("{processors}\n"));
}

#[test]
fn the_digest_says_nothing_of_our_own_outputs() {
    let verdict = Container::probe(&["nanoseconds"]).verify();
    if is_root() {
        assert_eq!(verdict.evidence.fields["own_runs"], 1);
        assert!(verdict.evidence.fields.contains_key("own_stdout"));
    }
    assert!(!verdict.preimage().contains("own_"), "{}", verdict.preimage());
    assert_eq!(verdict.digest, Container::probe(&["nanoseconds"]).verify().digest);
    let newest = Container::probe(&["nanoseconds"]).set("/job/runtime", json!("oci")).verify();
    assert_eq!(verdict.digest, newest.digest);
    assert_eq!(newest.evidence.fields["runtime"], "oci-1");
}

#[test]
fn a_container_has_no_meter() {
    let job = |count: u64| Container::probe(&["exit", "0"]).set("/claim/instruction_count", json!(count));
    job(0).check(expect!["valid ok: the claim is what the job gives"]);
    // Definite without a run: else a liar would claim a count to be found out in nothing.
    let claimed = job(1).says("lie\n").verify();
    assert_eq!((claimed.verdict.word(), &*claimed.reason.code), ("invalid", "instruction-count"));
    // Fuel of the deal means nothing here.
    job(0).set("/job/limits/fuel", json!(1)).check(expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn signals_are_exit_codes_as_a_shell_says_them() {
    let job = |signal: &str, code: u8| Container::probe(&["signal", signal]).set("/claim/exit_code", json!(code));
    for (signal, code) in [("9", 137), ("15", 143), ("11", 139)] {
        job(signal, code).check(expect!["valid ok: the claim is what the job gives"]);
    }
}

#[test]
fn the_images_command_environment_and_folder_are_taken() {
    let image = Image::probe().edit(|image| {
        image.config["config"] = json!({
            "Entrypoint": ["/probe"], "Cmd": ["env"], "Env": ["A=image", "B=image"], "WorkingDir": "/work/here",
        });
    });
    Container::new(&image, &[]).set("/job/env", json!({ "B": "job" })).hears(
        "in /work/here: A=image B=job HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    );
    // Arguments of the job stand in place of all of the image's command; a program is looked for in PATH.
    let image = Image::of(vec![image::archive(&[image::program("bin/tool")])]);
    Container::new(&image, &["tool", "write", "/tmp/a", "b"]).hears("written\n");
    Container::new(&image, &["missing"]).begins("inconclusive image-unsupported: the job's program does not start");
    Container::new(&image, &[]).begins("inconclusive image-unsupported: the job's program does not start");
    let none = Image::probe().edit(|image| image.config["config"] = json!(null));
    Container::new(&none, &[])
        .check(expect!["inconclusive image-unsupported: neither the job nor the image names a program"]);
}

#[test]
fn standard_input_and_inputs_are_what_the_request_says() {
    Container::probe(&["cat"]).file("in", b"to be read").set("/job/stdin", json!("in")).hears("to be read");
    Container::probe(&["cat"]).hears("");
    let image = Image::with(&[image::file("in/a", b"of the image"), image::file("out/old", b"of the image")]);
    let job = |words: &[&str]| {
        let inputs = json!([{ "path": "/in/a", "artifact": "a" }, { "path": "/out/in/b", "artifact": "b" }]);
        let job = Container::new(&image, &[&["/probe"], words].concat());
        job.file("a", b"first\n").file("b", b"second\n").set("/job/inputs", inputs)
    };
    job(&["show", "/in/a", "/out/in/b", "/out/old"]).hears("/in/a: first\n/out/in/b: second\n/out/old: of the image");
    for path in ["/in/a", "/out/in/b"] {
        let text = format!("{path}: Read-only file system\n");
        job(&["write", path, "x"]).set("/claim/exit_code", json!(1)).hears(&text);
    }
    // What the image has in an output is collected, an input is not.
    let old = json!([{ "path": "/out/old", "artifact": "old" }]);
    job(&["exit", "0"])
        .file("old", b"of the image")
        .set("/claim/outputs", old)
        .check(expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn an_output_may_be_one_file_or_lie_in_the_folder_for_temporary_files() {
    let job = |path: &str| {
        let job = Container::probe(&["write", path, "x"]).set("/job/outputs", json!([path]));
        job.file("x", b"x").set("/claim/outputs", json!([{ "path": path, "artifact": "x" }]))
    };
    for path in ["/results/a.txt", "/tmp/deep/er/a.txt"] {
        job(path).check(expect!["valid ok: the claim is what the job gives"]);
    }
    job("/a.txt").check(expect!["inconclusive job-malformed: /a.txt lies in the root, which is read-only"]);
    job("/dev/a.txt").check(expect!["inconclusive job-malformed: /dev/a.txt lies where the system writes"]);
}

#[test]
fn a_result_folder_has_the_cid_that_others_give_it() {
    let mut folder = tribunal_verifiers::Folder::new();
    for (path, bytes) in [("stdout", &b"written\n"[..]), ("stderr", b""), ("exitCode", b"0"), ("out/a", b"one")] {
        folder.add_file(path, bytes).expect("a plain path");
    }
    let job = |cid: String| Container::probe(&["write", "/out/a", "one"]).set("/claim", json!({ "folder": cid }));
    job(folder.cid().expect("small").to_string()).check(expect!["valid ok: the claim is what the job gives"]);
    job(tribunal_verifiers::Folder::new().cid().expect("small").to_string())
        .begins("inconclusive host-dependent: folder: expected Qm");
}

#[test]
fn without_a_runtime_nothing_is_said_of_the_claim() {
    let mut job = Container::probe(&["exit", "0"]).says("lie\n");
    job.containers = Containers::new("/nowhere/runc", job.base());
    assert_eq!(
        job.line(),
        "inconclusive runtime-unavailable: there is no program /nowhere/runc; Debian's package is runc"
    );
    assert_eq!(job.containers.probe(), Err("there is no program /nowhere/runc; Debian's package is runc".into()));
    // A program that is something else.
    job.containers = Containers::new("/bin/false", job.base());
    job.begins("inconclusive executor-fault: ");
    assert_eq!(Containers::default().probe().is_ok(), is_root(), "apt-get install runc");
}

#[test]
fn the_folder_for_containers_is_nobody_elses() {
    let job = Container::probe(&["exit", "0"]);
    fs::create_dir(job.base()).expect("a folder");
    fs::set_permissions(job.base(), fs::Permissions::from_mode(0o777)).expect("our own folder");
    job.begins("inconclusive executor-fault: ");
    fs::remove_dir(job.base()).expect("it is empty");
    std::os::unix::fs::symlink("/tmp", job.base()).expect("a link");
    let line = line(&Ok(job.verify_only()));
    assert!(line.starts_with("inconclusive executor-fault: ") || !is_root(), "{line}");
}
