//! Images that are wrong, and images that attack.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tar::EntryType;

use super::{
    Container,
    image::{Image, archive, file, folder, gzip, hardlink, member, program, sha256, symlink},
};

fn check(image: &Image, expected: Expect) {
    expected.assert_eq(&Container::new(image, &["/probe"]).line().replace("linux/arm64", "linux/amd64"));
}

/// What is wrong in layers is found where they are unpacked, which needs a runtime.
fn check_layer(members: &[Vec<u8>], expected: Expect) {
    Container::new(&Image::with(members), &["/probe"]).check(expected);
}

#[test]
fn a_layout_that_is_none_is_named() {
    let of = |bytes: &[u8]| {
        let job = Container::probe(&[]).file("other", bytes);
        job.set("/job/module", json!("other")).line()
    };
    expect!["inconclusive image-invalid: the layout has no oci-layout"].assert_eq(&of(b""));
    let noise = of(&[7; 2000]);
    assert!(noise.starts_with("inconclusive image-invalid: the archive cannot be read: numeric field"), "{noise}");
    assert!(!noise.contains(char::is_control) && noise.len() < 600, "{noise}");
    expect![[r#"inconclusive image-invalid: "../index.json" in the archive leads upwards"#]]
        .assert_eq(&of(&archive(&[file("../index.json", b"{}")])));
    expect![[r#"inconclusive image-invalid: "/index.json" in the archive is an absolute path"#]]
        .assert_eq(&of(&archive(&[file("/index.json", b"{}")])));
    expect!["inconclusive image-invalid: index.json in the layout is no plain file"]
        .assert_eq(&of(&archive(&[symlink("index.json", "/etc/passwd")])));
    expect!["inconclusive image-invalid: index.json is in the layout twice"]
        .assert_eq(&of(&archive(&[file("index.json", b"{}"), file("./index.json", b"{}")])));
    let whole = Image::probe().bytes();
    let cut = of(&whole[..whole.len() / 2]);
    assert!(cut.starts_with("inconclusive image-invalid: "), "{cut}");
}

#[test]
fn documents_of_a_layout_are_checked() {
    let spoilt = |name: &str, text: &str| {
        Image::probe().edit(|image| image.files.push((name.to_owned(), text.as_bytes().to_vec())))
    };
    check(
        &spoilt("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#),
        expect![[r#"inconclusive image-invalid: oci-layout: version 1.0.0 is known, not "2.0.0""#]],
    );
    check(
        &spoilt("index.json", "{"),
        expect!["inconclusive image-invalid: index.json is no JSON: a key in quotes expected (line 1, column 2)"],
    );
    check(
        &spoilt("index.json", r#"{"manifests":[],"manifests":[]}"#),
        expect![[
            r#"inconclusive image-invalid: index.json is no JSON: the key "manifests" is given twice (line 1, column 17)"#
        ]],
    );
    check(&spoilt("index.json", "{}"), expect!["inconclusive image-invalid: manifests is no list"]);
    check(
        &spoilt("index.json", r#"{"manifests":[]}"#),
        expect!["inconclusive image-unsupported: the layout has no image for linux/amd64 (0 for others)"],
    );
    check(
        &spoilt("index.json", r#"{"manifests":[{"mediaType":"text/plain"}]}"#),
        expect![[r#"inconclusive image-unsupported: the index names something of type "text/plain""#]],
    );
    let large = format!(r#"{{"manifests":[]{}}}"#, " ".repeat(5 << 20));
    check(&spoilt("index.json", &large), expect!["inconclusive image-invalid: index.json has more than 4194304 bytes"]);
}

#[test]
fn there_is_exactly_one_image_for_this_machine() {
    let index = |change: fn(&mut Value)| {
        let layout: Value = {
            let files = Image::probe().layout();
            let index = files.iter().find(|(name, _)| name == "index.json").expect("made");
            serde_json::from_slice(&index.1).expect("json")
        };
        Image::probe().edit(|image| {
            image.index = layout;
            change(&mut image.index["manifests"]);
        })
    };
    check(
        &index(|manifests| manifests[0]["platform"] = json!({ "os": "linux", "architecture": "vax" })),
        expect!["inconclusive image-unsupported: the layout has no image for linux/amd64 (1 for others)"],
    );
    let twice =
        Container::new(&index(|manifests| *manifests = json!([manifests[0], manifests[0]])), &["/probe"]).line();
    assert!(twice.contains("the layout has 2 images for linux/"), "{twice}");
    let vax = Image::probe().edit(|image| image.config["architecture"] = json!("vax"));
    check(&vax, expect!["inconclusive image-unsupported: the layout has no image for linux/amd64 (1 for others)"]);
    let many = index(|manifests| *manifests = vec![manifests[0].clone(); 65].into());
    check(&many, expect!["inconclusive image-invalid: the layout has more than 64 manifests"]);
    // An attestation beside the image, as builders write it, is no second image.
    let attested = index(|manifests| {
        let mut other = manifests[0].clone();
        other["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        *manifests = json!([manifests[0], other]);
    });
    Container::new(&attested, &["/probe", "exit", "0"]).begins("valid ok");
}

#[test]
fn every_digest_and_size_is_checked() {
    let blob = |find: fn(&[u8]) -> bool, change: fn(&mut Vec<u8>)| {
        Image::probe().edit(|image| {
            let (name, mut bytes) = image
                .layout()
                .into_iter()
                .find(|(name, bytes)| name.starts_with("blobs") && find(bytes))
                .expect("made");
            change(&mut bytes);
            image.files.push((name, bytes));
        })
    };
    let line = |image: &Image| {
        let line = Container::new(image, &["/probe"]).line();
        // Digests differ with the compiler.
        line.split(" sha256:").next().unwrap_or_default().to_owned()
            + if line.contains("has the digest") { " … digest" } else { " … size" }
    };
    let manifest = |bytes: &[u8]| {
        bytes.starts_with(b"{")
            && bytes.windows(8).any(|part| part == b"\"layers\"")
            && bytes.windows(8).any(|part| part == b"\"config\"")
            && !bytes.windows(12).any(|part| part == b"architecture")
    };
    let config = |bytes: &[u8]| bytes.windows(12).any(|part| part == b"architecture");
    let layer = |bytes: &[u8]| !bytes.starts_with(b"{");
    let flip = |bytes: &mut Vec<u8>| bytes[600] ^= 1;
    let space = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 1;
        bytes[at] = b' ';
    };
    let longer = |bytes: &mut Vec<u8>| bytes.push(b' ');
    expect!["inconclusive image-invalid: manifest … digest"].assert_eq(&line(&blob(manifest, space)));
    expect!["inconclusive image-invalid: config … digest"].assert_eq(&line(&blob(config, space)));
    expect!["inconclusive image-invalid: layer … digest"].assert_eq(&line(&blob(layer, flip)));
    expect!["inconclusive image-invalid: manifest … size"].assert_eq(&line(&blob(manifest, longer)));
    expect!["inconclusive image-invalid: config … size"].assert_eq(&line(&blob(config, longer)));
    expect!["inconclusive image-invalid: layer … size"].assert_eq(&line(&blob(layer, longer)));
    let zeros = format!("sha256:{}", "0".repeat(64));
    let other = Image::probe().edit(|image| image.config["rootfs"]["diff_ids"] = json!([zeros]));
    Container::new(&other, &["/probe"]).begins("inconclusive image-invalid: layer 0 unpacks to sha256:");
    let none = Image::probe().edit(|image| image.config["rootfs"]["diff_ids"] = json!([]));
    check(&none, expect!["inconclusive image-invalid: 1 layers and 0 diff_ids: as many, at most 128"]);
    let md5 = Image::probe().edit(|image| {
        image.index["manifests"] =
            json!([{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "md5:00", "size": 1 }])
    });
    check(&md5, expect![[r#"inconclusive image-unsupported: manifest: "md5:00" is no sha256 digest"#]]);
    let absent = sha256(b"nobody has it");
    let absent = Image::probe().edit(|image| image.index["manifests"] = json!([{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{absent}"), "size": 1 }]));
    check(
        &absent,
        expect![
            "inconclusive image-invalid: the layout has no blobs/sha256/32e5968800fa7ebcf35ec29a280ac58be4c967e409bdc6430207a8ae16eb5dcb"
        ],
    );
}

#[test]
fn what_this_profile_lacks_is_unsupported() {
    let config = |value: Value| Image::probe().edit(|image| image.config["config"] = value);
    check(
        &config(json!({ "User": "1000" })),
        expect![[r#"inconclusive image-unsupported: the image runs as user "1000"; this profile has root alone"#]],
    );
    check(
        &config(json!({ "WorkingDir": "here" })),
        expect![[r#"inconclusive image-invalid: config.WorkingDir: "here" is no absolute path"#]],
    );
    check(
        &config(json!({ "Env": ["no value"] })),
        expect![[r#"inconclusive image-invalid: config.Env: "no value" is no NAME=value"#]],
    );
    check(
        &config(json!({ "Entrypoint": "text" })),
        expect!["inconclusive image-invalid: config.Entrypoint is no list of at most 1024 texts"],
    );
    let zstd = Image::probe().edit(|image| {
        image.manifest["layers"] = json!([{ "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd" }])
    });
    check(
        &zstd,
        expect![[
            r#"inconclusive image-unsupported: a layer has the type "application/vnd.oci.image.layer.v1.tar+zstd"; tar and tar+gzip are unpacked"#
        ]],
    );
}

#[test]
fn layers_are_laid_over_one_another() {
    let image = Image::of(vec![
        archive(&[
            program("probe"),
            file("a/gone", b"1"),
            file("a/stays", b"1"),
            file("b/1", b"1"),
            file("b/2", b"1"),
            folder("real/"),
            symlink("alias", "/real"),
            file("old", b"1"),
            file("c/d/e", b"1"),
        ]),
        archive(&[
            file("a/.wh.gone", b""),
            file("b/new", b"2"),
            file("b/.wh..wh..opq", b""),
            file("alias/through", b"2"),
            file("old", b"2"),
            hardlink("twin", "a/stays"),
            file(".wh.c", b""),
            file("c/new", b"2"),
            file("a/.wh.never", b""),
        ]),
    ]);
    let words = ["/probe", "list", "/", "/a", "/b", "/c", "/real"];
    let text = "/: a alias b c dev old out probe proc real tmp twin\n/a: stays\n/b: new\n/c: new\n/real: through\n";
    Container::new(&image, &words).hears(text);
    Container::new(&image.clone().packed(), &words).hears(text);
    Container::new(&image, &["/probe", "show", "/old", "/twin", "/alias/through"])
        .hears("/old: 2/twin: 1/alias/through: 2");
}

#[test]
fn permissions_owners_and_times_are_the_same_everywhere() {
    let image = Image::with(&[
        member(b"setuid", EntryType::Regular, b"", 0o6755, b""),
        member(b"a/", EntryType::Directory, b"", 0o1750, b""),
        file("one", b""),
        hardlink("two", "one"),
        member(b"device", EntryType::Char, b"", 0o666, b""),
        member(b"pipe", EntryType::Fifo, b"", 0o666, b""),
    ]);
    Container::new(&image, &["/probe", "stat", "/setuid", "/a", "/one", "/two", "/device", "/pipe"]).hears(
        "/setuid: 100755 uid 0 links 1 at 1700000000\n\
         /a: 40750 uid 0 links 2 at 1700000000\n\
         /one: 100644 uid 0 links 2 at 1700000000\n\
         /two: 100644 uid 0 links 2 at 1700000000\n\
         /device: No such file or directory\n\
         /pipe: No such file or directory\n",
    );
}

#[test]
fn no_member_leads_out_of_the_image() {
    let victim = tempfile::tempdir().expect("a folder");
    let (outside, deep) = (victim.path().to_string_lossy().into_owned(), format!("{}/inside", victim.path().display()));
    // A link to a folder of the machine, and a file through it: both stay in the image.
    let through = Image::with(&[symlink("escape", &outside), file("escape/pwned", b"x")]);
    let inside = format!("{outside}/pwned");
    Container::new(&through, &["/probe", "show", &inside]).hears(&format!("{inside}: x"));
    let upwards =
        Image::with(&[symlink("escape", &format!("../../../../../../../../{deep}")), file("escape/pwned", b"x")]);
    Container::new(&upwards, &["/probe", "show", &format!("{deep}/pwned")]).hears(&format!("{deep}/pwned: x"));
    // A whiteout through a link removes nothing of the machine.
    fs::write(victim.path().join("kept"), "x").expect("our own folder");
    let whiteout =
        Image::with(&[symlink("escape", &outside), file("escape/.wh.kept", b""), file("escape/.wh..wh..opq", b"")]);
    Container::new(&whiteout, &["/probe", "exit", "0"]).begins("valid ok");
    let names: Vec<_> =
        fs::read_dir(victim.path()).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["kept"]);
    check_layer(
        &[file("../../pwned", b"x")],
        expect![[r#"inconclusive image-invalid: layer 1: "../../pwned" in the archive leads upwards"#]],
    );
    check_layer(
        &[file("a/../../pwned", b"x")],
        expect![[r#"inconclusive image-invalid: layer 1: "a/../../pwned" in the archive leads upwards"#]],
    );
    check_layer(
        &[file("/etc/pwned", b"x")],
        expect![[r#"inconclusive image-invalid: layer 1: "/etc/pwned" in the archive is an absolute path"#]],
    );
    check_layer(
        &[hardlink("shadow", "../../../etc/shadow")],
        expect![[r#"inconclusive image-invalid: layer 1: "../../../etc/shadow" in the archive leads upwards"#]],
    );
    check_layer(
        &[hardlink("shadow", "/etc/shadow")],
        expect!["inconclusive image-invalid: layer 1: a hard link leads to /etc/shadow, which is not there"],
    );
    check_layer(
        &[symlink("etc", "/etc"), hardlink("shadow", "etc/shadow")],
        expect!["inconclusive image-invalid: layer 1: /etc leads through more than 40 links"],
    );
    check_layer(
        &[hardlink("folder", "a"), folder("a/")],
        expect!["inconclusive image-invalid: layer 1: a hard link leads to /a, which is not there"],
    );
    check_layer(
        &[symlink("a", "b"), symlink("b", "a"), file("a/x", b"")],
        expect!["inconclusive image-invalid: layer 1: /a leads through more than 40 links"],
    );
    check_layer(
        &[file("a", b""), file("a/b", b"")],
        expect!["inconclusive image-invalid: layer 1: /a is no folder of the image"],
    );
    check_layer(&[symlink("a", "")], expect!["inconclusive image-invalid: layer 1: a link below / leads nowhere"]);
    check_layer(
        &[file("a/.wh.", b"")],
        expect!["inconclusive image-invalid: layer 1: /a in a layer is a whiteout of nothing"],
    );
    check_layer(
        &[file("a/.wh...", b"")],
        expect!["inconclusive image-invalid: layer 1: /a in a layer is a whiteout of nothing"],
    );
}

#[test]
fn where_the_system_or_the_job_mounts_there_is_no_link() {
    for path in ["proc", "dev", "tmp", "out"] {
        Container::new(&Image::with(&[symlink(path, "/etc")]), &["/probe"])
            .begins(&format!("inconclusive image-unsupported: /{path} must be a folder"));
    }
    let inside = Image::with(&[symlink("out/link", "/etc")]);
    Container::new(&inside, &["/probe"])
        .file("in", b"x")
        .set("/job/inputs", json!([{ "path": "/out/link/passwd", "artifact": "in" }]))
        .begins("inconclusive image-unsupported: /out/link leads through a file or link of the image");
    Container::new(&Image::with(&[symlink("in", "/etc")]), &["/probe"])
        .file("in", b"x")
        .set("/job/inputs", json!([{ "path": "/in/passwd", "artifact": "in" }]))
        .begins("inconclusive image-unsupported: /in must be a folder");
}

#[test]
fn an_image_has_its_bounds() {
    // 64 MiB of zeros in 64 KiB.
    let zeros = archive(&[file("zeros", &vec![0; 64 << 20])]);
    let bomb = Image::with(&[]).packed_as(gzip(&zeros), zeros);
    Container::new(&bomb, &["/probe"]).begins("inconclusive operator-limit: layer 1: ");
    let deep: Vec<u8> = b"d/".repeat(49);
    let links: Vec<_> = (0..2)
        .map(|number| {
            let below = if number == 0 { Vec::new() } else { b"0/".to_vec() };
            symlink(&number.to_string(), &String::from_utf8([below, deep.clone()].concat()).expect("letters"))
        })
        .collect();
    check_layer(
        &[links, vec![file("1/x", b"")]].concat(),
        expect!["inconclusive image-invalid: layer 1: folders of the image lie more than 64 deep"],
    );
    let long = |kind: EntryType, bytes: &[u8]| member(b"record", kind, b"", 0, bytes);
    check_layer(
        &[long(EntryType::GNULongName, &[b'a'; 256]), file("x", b"")],
        expect!["inconclusive image-invalid: layer 1: a name in the image has more than 255 bytes"],
    );
    check_layer(
        &[long(EntryType::GNULongName, &b"a/".repeat(2500)), file("x", b"")],
        expect!["inconclusive image-invalid: layer 1: a path or link in the archive has more than 4095 bytes"],
    );
    check_layer(
        &[long(EntryType::GNULongName, &vec![b'a'; 2 << 20]), file("x", b"")],
        expect!["inconclusive image-invalid: layer 1: a record before a member has more than 1048576 bytes"],
    );
    check_layer(
        &[long(EntryType::XHeader, &vec![b'a'; 2 << 20]), file("x", b"")],
        expect!["inconclusive image-invalid: layer 1: a record before a member has more than 1048576 bytes"],
    );
    check_layer(
        &[long(EntryType::XHeader, b"22 GNU.sparse.major=1\n"), file("x", b"")],
        expect!["inconclusive image-unsupported: layer 1: the archive has a sparse file"],
    );
    check_layer(
        &[long(EntryType::XHeader, b"99 path=short\n"), file("x", b"")],
        expect!["inconclusive image-invalid: layer 1: a pax record is malformed: malformed pax extension"],
    );
    check_layer(
        &[long(EntryType::XHeader, b"12 size=999\n"), file("x", b"")],
        expect!["inconclusive image-unsupported: layer 1: a pax record gives a member's size"],
    );
    check_layer(
        &[long(EntryType::XHeader, b"13 path=../x\n"), file("x", b"")],
        expect![[r#"inconclusive image-invalid: layer 1: "../x" in the archive leads upwards"#]],
    );
    check_layer(
        &[member(b"x", EntryType::new(b'Z'), b"", 0, b"")],
        expect!["inconclusive image-unsupported: layer 1: the archive has a member of type 90"],
    );
    let mut crooked = file("x", b"");
    crooked[0] = b'y';
    check_layer(
        &[crooked],
        expect!["inconclusive image-invalid: layer 1: the archive cannot be read: archive header checksum mismatch"],
    );
    // The archive ends in the middle of a file.
    let half = archive(&[file("x", &[1; 4096])])[..1024].to_vec();
    Container::new(&Image::of(vec![half]), &["/probe"])
        .check(expect!["inconclusive image-invalid: layer 0: the archive cannot be read: unexpected EOF during skip"]);
    let broken = Image::with(&[]).packed_as(b"no gzip".to_vec(), Vec::new());
    Container::new(&broken, &["/probe"])
        .check(expect!["inconclusive image-invalid: layer 1: the archive cannot be read: unexpected end of file"]);
    // Long names as tar programs write them are read.
    let name = "n".repeat(120);
    let named = Image::with(&[long(EntryType::GNULongName, name.as_bytes()), file("x", b"1")]);
    Container::new(&named, &["/probe", "show", &format!("/{name}")]).hears(&format!("/{name}: 1"));
    let record = format!("{} path={name}\n", 120 + 10);
    let named = Image::with(&[long(EntryType::XHeader, record.as_bytes()), file("x", b"1")]);
    Container::new(&named, &["/probe", "show", &format!("/{name}")]).hears(&format!("/{name}: 1"));
}
