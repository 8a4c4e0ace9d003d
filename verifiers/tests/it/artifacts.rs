//! Where bytes come from.

use std::sync::Arc;

use tribunal_verifiers::{ArtifactFault, ArtifactSource, Chain, FolderSource, MemorySource, Reference};

fn file(name: &str) -> Reference {
    Reference::File(name.into())
}

fn address(text: &str) -> Reference {
    Reference::Address(text.parse().expect("an address"))
}

#[test]
fn a_folder_serves_names_and_addresses_and_nothing_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("artifacts");
    std::fs::create_dir_all(inside.join("deep")).expect("a folder");
    std::fs::write(inside.join("deep/a.txt"), "hello").expect("a file");
    std::fs::write(folder.path().join("secret"), "secret").expect("a file");
    std::os::unix::fs::symlink("../secret", inside.join("link")).expect("a link");
    std::os::unix::fs::symlink("deep/a.txt", inside.join("inner")).expect("a link");
    let source = FolderSource::open(&inside).expect("a source").with_bytes_max(100);
    let bytes = |reference: &Reference| source.fetch(reference).expect("no fault").map(|bytes| bytes.to_vec());
    assert_eq!(bytes(&file("deep/a.txt")).as_deref(), Some(&b"hello"[..]));
    assert_eq!(bytes(&file("./inner")).as_deref(), Some(&b"hello"[..]));
    assert_eq!(bytes(&file("nothing")), None);
    assert_eq!(bytes(&file("deep/a.txt/b")), None);
    let blake3 = address(&format!("blake3:{}", blake3::hash(b"hello").to_hex()));
    let sha256 = address("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(bytes(&blake3).as_deref(), Some(&b"hello"[..]));
    assert_eq!(bytes(&sha256).as_deref(), Some(&b"hello"[..]));
    let secret = address(&format!("blake3:{}", blake3::hash(b"secret").to_hex()));
    assert_eq!(bytes(&secret), None, "a link must not lead out of the folder");
    for name in ["../secret", "/etc/passwd", "link", "deep", "deep/../../secret"] {
        assert!(matches!(source.fetch(&file(name)), Err(ArtifactFault::Refused { .. })), "{name}");
    }
    std::fs::write(inside.join("large"), [0; 101]).expect("a file");
    assert!(matches!(source.fetch(&file("large")), Err(ArtifactFault::TooLarge { found: 101, most: 100, .. })));

    // What changes or comes later is found too.
    std::fs::write(inside.join("deep/a.txt"), "other, and longer").expect("a file");
    assert_eq!(bytes(&blake3), None);
    std::fs::write(inside.join("late"), "hello").expect("a file");
    assert_eq!(bytes(&blake3).as_deref(), Some(&b"hello"[..]));
}

struct Liar;

impl ArtifactSource for Liar {
    fn fetch(&self, _: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(Some(b"lie".as_slice().into()))
    }
}

#[test]
fn a_source_that_serves_other_bytes_is_passed_over() {
    let mut memory = MemorySource::new();
    let truth = Reference::Address(memory.add(b"truth".as_slice()));
    let chain = Chain(vec![Arc::new(Liar), Arc::new(memory)]);
    assert_eq!(chain.fetch(&truth).expect("no fault").as_deref(), Some(&b"truth"[..]));
    let missing = address(&format!("blake3:{}", "00".repeat(32)));
    assert!(matches!(chain.fetch(&missing), Err(ArtifactFault::OtherBytes { .. })));
}
