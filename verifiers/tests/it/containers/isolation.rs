//! What a job cannot reach, and what stops it.

use std::net::TcpListener;

use expect_test::expect;
use serde_json::json;

use super::{Container, image};
use image::Image;

#[test]
fn a_job_reaches_nothing_of_the_machine() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let image = Image::with(&[image::folder("etc/")]);
    let path = secret.path().to_string_lossy();
    Container::new(&image, &["/probe", "isolation", &path, &port.to_string()]).hears(
        "uid 0 gid 0 pid 1 host tribunal\n\
         /proc: 1\n\
         /dev: fd full null ptmx random shm stderr stdin stdout tty urandom zero\n\
         /sys: No such file or directory\n\
         /sys/fs/cgroup: No such file or directory\n\
         CapEff:\t0000000000000000\n\
         CapBnd:\t0000000000000000\n\
         NoNewPrivs:\t1\n\
         Seccomp:\t2\n\
         host file: No such file or directory\n\
         write /: Read-only file system\n\
         write /etc/x: Read-only file system\n\
         write /proc/sys: Permission denied\n\
         bytes of /proc/interrupts: 0\n\
         connect here: Connection refused\n\
         connect there: Network is unreachable\n\
         vsock: Operation not permitted\n\
         raw socket: Operation not permitted\n\
         mount: Operation not permitted\n\
         umount: Operation not permitted\n\
         unshare: Operation not permitted\n\
         clone: Operation not permitted\n\
         clone3: Function not implemented\n\
         bpf: Operation not permitted\n\
         keyctl: Operation not permitted\n\
         ptrace: Operation not permitted\n\
         chroot: Operation not permitted\n\
         mknod: Operation not permitted\n\
         sethostname: Operation not permitted\n\
         settimeofday: Operation not permitted\n\
         kill all: No such process\n",
    );
}

#[test]
fn a_job_that_wants_more_memory_is_stopped_and_convicts_nobody() {
    for what in ["memory", "memory-of-a-child"] {
        Container::probe(&[what]).check(expect!["inconclusive memory-limit: the job wanted more than 67108864 bytes"]);
    }
    let mut job = Container::probe(&["memory"]);
    job.limits.memory_bytes_max = 32 << 20;
    job.check(expect![
        "inconclusive operator-limit: the job wanted more than 33554432 bytes, which this operator allows"
    ]);
}

#[test]
fn a_job_that_forks_without_end_is_stopped() {
    Container::probe(&["fork"])
        .check(expect!["inconclusive operator-limit: the job wanted more processes than this verifier allows"]);
}

#[test]
fn a_job_that_writes_without_end_is_stopped() {
    let line = "inconclusive output-limit: the job wrote more than 1048576 bytes";
    for path in ["/out/big", "/tmp/big", "/dev/shm/big"] {
        Container::probe(&["disk", path]).begins(line);
    }
    Container::probe(&["flood"]).begins(line);
    // Two MiB are promised and none are there.
    Container::probe(&["sparse", "/out/big"])
        .check(expect!["inconclusive output-limit: /out/big: the outputs have more than 1048565 bytes"]);
    let mut job = Container::probe(&["flood"]);
    job.limits.output_bytes_max = 1000;
    job.check(expect!["inconclusive operator-limit: the job wrote more than 1000 bytes, which this operator allows"]);
}

#[test]
fn a_job_that_does_not_end_is_stopped() {
    Container::probe(&["loop"])
        .set("/job/limits/wall_ms", json!(500))
        .check(expect!["inconclusive wall-time: the job still ran after 500 ms"]);
    let mut job = Container::probe(&["loop"]);
    job.limits.wall_ms_max = 500;
    job.check(expect!["inconclusive operator-limit: the job still ran after 500 ms, which this operator allows"]);
}

#[test]
fn a_job_that_nobody_stops_ends_by_itself() {
    // A minute on every processor but one, and ten seconds.
    let processors = std::thread::available_parallelism().expect("processors").get();
    let cpu_s = 60 * (processors - 1).max(1) + 10;
    Container::probe(&["limits"]).hears(&format!("cpu {cpu_s} files 4096 core 0\n"));
}

#[test]
fn no_link_of_a_job_leads_the_collector_out() {
    let outputs = json!(["/out", "/tmp/results"]);
    Container::probe(&["links"])
        .set("/job/outputs", outputs)
        .file("kept", b"kept")
        .set("/claim/outputs", json!([{ "path": "/out/file", "artifact": "kept" }]))
        .check(expect!["valid ok: the claim is what the job gives"]);
}
