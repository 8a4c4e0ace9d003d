//! Jobs as marketplaces describe them.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tribunal_verifiers::{
    Reference, Request,
    job_description::{Choices, offer, read},
};

use crate::bench::fixture;

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture("markets/descriptions").join(name)).expect("a fixture")
}

fn choices(inputs: &[(&str, &str)]) -> Choices {
    let artifact = |name: &str, file: &str| (name.to_owned(), Reference::File(file.into()));
    Choices {
        inputs: inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        artifacts: BTreeMap::from([
            artifact(
                "example/say:1@sha256:0000000000000000000000000000000000000000000000000000000000000001",
                "say.tar",
            ),
            artifact("busybox:latest", "busybox.tar"),
            artifact("https://example.org/a.csv", "a.csv"),
        ]),
        ..Choices::default()
    }
}

/// The job as JSON, then the notes; or the problem.
fn shown(text: &str, choices: &Choices) -> String {
    match read(text, choices) {
        Ok(described) => {
            let request = described.request();
            let parsed = Request::parse(&request.to_string()).expect("a request");
            assert_eq!(parsed.job.as_ref(), Some(&described.job));
            let notes: String = described.notes.iter().map(|note| format!("{note}\n")).collect();
            format!("{}\n{notes}", request["job"])
        }
        Err(problem) => format!("{problem}\n"),
    }
}

fn check(name: &str, inputs: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&shown(&text(name), &choices(inputs)));
}

#[test]
fn a_modules_template_is_rendered_and_read() {
    check(
        "module-docker.json.tmpl",
        &[],
        expect![[r#"
        {"args":["/usr/bin/say","give me an input called Message"],"env":{"OFFLINE":"1","SEED":"42"},"inputs":[],"limits":{"fuel":100000000000,"memory_bytes":2147483648,"output_bytes":268435456,"wall_ms":600000},"module":"say.tar","outputs":["/outputs"],"runtime":"oci-1"}
        Docker's entrypoint is replaced, as Bacalhau 1.1 and later do; earlier ones kept the image's
    "#]],
    );
    check(
        "module-docker.json.tmpl",
        &[("Message", "moo & \"more\" {{x}}"), ("Seed", "7")],
        expect![[r#"
        {"args":["/usr/bin/say","moo & \"more\" {{x}}"],"env":{"OFFLINE":"1","SEED":"7"},"inputs":[],"limits":{"fuel":100000000000,"memory_bytes":2147483648,"output_bytes":268435456,"wall_ms":600000},"module":"say.tar","outputs":["/outputs"],"runtime":"oci-1"}
        Docker's entrypoint is replaced, as Bacalhau 1.1 and later do; earlier ones kept the image's
    "#]],
    );
    let module = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    check(
        "module-wasm.json.tmpl",
        &[("Module", module)],
        expect![[r#"
        {"args":[""],"env":{},"inputs":[],"limits":{"fuel":100000000000,"memory_bytes":1073741824,"output_bytes":268435456,"wall_ms":1800000},"module":"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o","outputs":["/outputs"],"runtime":"wasm-1"}
    "#]],
    );
    let data = "bafybeifcvvzqwqetoshbv7hagj4oeljgp67yffv6p62av5xitmj3ajucy4";
    check(
        "module-wasm.json.tmpl",
        &[("Module", module), ("Data", data)],
        expect![[r#"
        {"args":[""],"env":{},"inputs":[{"artifact":"bafybeifcvvzqwqetoshbv7hagj4oeljgp67yffv6p62av5xitmj3ajucy4","path":"/data"}],"limits":{"fuel":100000000000,"memory_bytes":1073741824,"output_bytes":268435456,"wall_ms":1800000},"module":"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o","outputs":["/outputs"],"runtime":"wasm-1"}
    "#]],
    );
    // What is not given renders as nothing.
    check(
        "module-wasm.json.tmpl",
        &[],
        expect![[r#"
        description: is no JSON: a value expected (line 13, column 31)
    "#]],
    );
}

#[test]
fn jobs_with_a_spec_and_with_tasks_are_read() {
    check(
        "spec-wasm.json",
        &[],
        expect![[r#"
        {"args":["","-n","3"],"env":{"LANG":"C"},"inputs":[{"artifact":"a.csv","path":"/inputs/a"},{"artifact":"bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4","path":"/inputs/b"}],"limits":{"fuel":100000000000,"memory_bytes":536870912,"output_bytes":1610612736,"wall_ms":60000},"module":"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o","outputs":["/outputs"],"runtime":"wasm-1"}
    "#]],
    );
    check(
        "tasks-wasm.json",
        &[],
        expect![[r#"
        {"args":["","/in","/out"],"env":{"A":"1","B":"2"},"inputs":[{"artifact":"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o","path":"/in/text"}],"limits":{"fuel":100000000000,"memory_bytes":67108864,"output_bytes":268435456,"wall_ms":30000},"module":"bafybeifcvvzqwqetoshbv7hagj4oeljgp67yffv6p62av5xitmj3ajucy4","outputs":["/out"],"runtime":"wasm-1"}
    "#]],
    );
    check(
        "tasks-docker.json",
        &[],
        expect![[r#"
        {"args":["/bin/sh","-c","echo 15 > /results/output.txt"],"env":{"A":"1=2","EMPTY":""},"inputs":[],"limits":{"fuel":100000000000,"memory_bytes":1073741824,"output_bytes":268435456,"wall_ms":1800000},"module":"busybox.tar","outputs":["/results"],"runtime":"oci-1"}
        the image busybox:latest is named without a digest: others may have run another one
        Docker's entrypoint is replaced, as Bacalhau 1.1 and later do; earlier ones kept the image's
        the description says nothing of the network; the job runs without
    "#]],
    );
}

/// A fixture with one value replaced or, with null, taken away; `a` in a pointer stands for a key or an index.
fn changed(name: &str, pointer: &str, value: Value) -> String {
    let mut description: Value = serde_json::from_str(&text(name)).expect("JSON");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = description.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.into(), value)),
        Value::Array(entries) => entries[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    description.to_string()
}

#[test]
fn what_cannot_be_carried_over_is_refused_by_its_name() {
    let cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    let spec = |field: &str, value: Value| changed("spec-wasm.json", &format!("/Spec/{field}"), value);
    let task = |field: &str, value: Value| changed("tasks-wasm.json", &format!("/Tasks/0/{field}"), value);
    let docker = |field: &str, value: Value| changed("tasks-docker.json", &format!("/Tasks/0/{field}"), value);
    for (description, problem) in [
        (spec("Network", json!({ "Type": "Full" })), "Spec.Network.Type: a network"),
        (spec("Network", json!({ "Type": 1 })), "Spec.Network.Type: a network"),
        (spec("Network", json!({ "Type": "HTTP", "Domains": ["a.example"] })), "Spec.Network.Type: a network"),
        (spec("Network", json!({ "Domains": ["a.example"] })), "Spec.Network.Domains: a network"),
        (spec("Resources", json!({ "GPU": "1" })), "Spec.Resources.GPU: a GPU"),
        (spec("Resources", json!({ "Memory": "lots" })), "Spec.Resources.Memory: bytes like 512Mb"),
        (spec("Resources", json!({ "Memory": "99999999999999Tb" })), "Spec.Resources.Memory: bytes like 512Mb"),
        (spec("Resources", json!({ "Memory": 5 })), "Spec.Resources.Memory: a string is needed"),
        (spec("PublisherSpec", json!({ "Type": "S3" })), "Spec.PublisherSpec.Type: the publisher \"S3\""),
        (spec("Publisher", json!("Carrier pigeon")), "Spec.Publisher: the publisher \"Carrier pigeon\""),
        (spec("NodeSelectors", json!([{ "Key": "gpu" }])), "Spec.NodeSelectors: a choice of machines"),
        (spec("Timeout", json!(-1)), "Spec.Timeout: a whole number"),
        (spec("Timeout", json!(18_446_744_073_709_552_u64)), "Spec.Timeout: seconds are needed"),
        (spec("Secrets", json!({})), "Spec.Secrets: is unknown here"),
        (spec("inputs", json!([])), "Spec.inputs: is given twice"),
        (spec("Language", json!({ "JobContext": { "Program": "x" } })), "Spec.Language.JobContext.Program: this part"),
        (spec("EngineSpec", Value::Null), "Spec.Engine: is missing"),
        (spec("EngineSpec/Type", json!("firecracker")), "Spec.EngineSpec.Type: docker or wasm"),
        (
            spec("EngineSpec/Params/EntryPoint", json!("main")),
            "Spec.EngineSpec.Params.EntryPoint: a job here begins at",
        ),
        (
            spec("EngineSpec/Params/ImportModules", json!([{ "CID": cid }])),
            "Spec.EngineSpec.Params.ImportModules: modules that",
        ),
        (
            spec("EngineSpec/Params/EntryModule/StorageSource", json!("S3")),
            "Spec.EngineSpec.Params.EntryModule.StorageSource: files from \"s3\"",
        ),
        (
            spec("EngineSpec/Params/EntryModule/CID", json!("Qm1")),
            "Spec.EngineSpec.Params.EntryModule.CID: \"Qm1\" is no IPFS CID",
        ),
        (
            spec("EngineSpec/Params/EntryModule/URL", json!("https://a")),
            "Spec.EngineSpec.Params.EntryModule.URL: a second source",
        ),
        (spec("Inputs/1/URL", json!("https://example.org/b.csv")), "Spec.Inputs[1].URL: no artifact is given"),
        (spec("Inputs/1/Path", json!("/inputs/b")), "job.inputs: /inputs/b is given twice"),
        (spec("Inputs/1/Path", json!("../b")), "job.inputs[1].path: not an absolute plain path"),
        (spec("Inputs/1/Path", Value::Null), "Spec.Inputs[1].Path: is missing"),
        (spec("Outputs/0/Name", json!("results")), "Spec.Outputs[0].Name: a result folder calls it \"results\""),
        (changed("spec-wasm.json", "/APIVersion", json!("V2")), "APIVersion: V1beta1 or V1beta2"),
        (changed("tasks-wasm.json", "/Type", json!("daemon")), "Type: a job that ends is needed"),
        (changed("tasks-wasm.json", "/Constraints", json!([{ "Key": "a" }])), "Constraints: a choice of machines"),
        (changed("tasks-wasm.json", "/Tasks", json!([])), "Tasks: one task is one job; there are 0"),
        (changed("tasks-wasm.json", "/Tasks", json!({})), "Tasks: a list is needed, not an object"),
        (changed("tasks-wasm.json", "/Tasks", Value::Null), "Tasks: is missing"),
        (changed("tasks-wasm.json", "/Command", json!("x")), "Command: is unknown here"),
        (task("Publisher/Type", json!("s3")), "Tasks[0].Publisher.Type: the publisher \"s3\""),
        (task("Resources/GPU", json!("2")), "Tasks[0].Resources.GPU: a GPU"),
        (task("Network/Type", json!("Bridge")), "Tasks[0].Network.Type: a network"),
        (task("Env/A", json!("env:HOME")), "Tasks[0].Env.A: is taken from the environment"),
        (
            task("InputSources/0/Source/Type", json!("localDirectory")),
            "Tasks[0].InputSources[0].Source.Type: files from",
        ),
        (
            task("InputSources/0/Source/Params/CID", Value::Null),
            "Tasks[0].InputSources[0].Source.Params.CID: is missing",
        ),
        (task("Sidecar", json!({})), "Tasks[0].Sidecar: is unknown here"),
        (docker("Engine/Params/Image", json!("other:1")), "Tasks[0].Engine.Params.Image: no artifact is given"),
        (
            docker("Engine/Params/Entrypoint", Value::Null),
            "Tasks[0].Engine.Params.Parameters: stand behind the image's own",
        ),
        (docker("Engine/Params/WorkingDirectory", json!("/app")), "Tasks[0].Engine.Params.WorkingDirectory: a working"),
        (
            docker("Engine/Params/EnvironmentVariables/0", json!("A")),
            "Tasks[0].Engine.Params.EnvironmentVariables[0]: a name",
        ),
        (
            docker("Engine/Params/EnvironmentVariables/1", json!("A=")),
            "Tasks[0].Engine.Params.EnvironmentVariables[1]: the variable \"A\"",
        ),
        ("[]".into(), "description: an object is needed"),
        ("{".into(), "description: is no JSON"),
        ("{\"job\": {}, \"job\": {}}".into(), "description: is no JSON"),
        ("{\"job\": 7}".into(), "job: an object is needed"),
        (" ".repeat(1024 * 1024 + 1), "description: at most 1048576 bytes"),
    ] {
        let shown = shown(&description, &choices(&[]));
        assert!(shown.starts_with(problem), "expected {problem}, found {shown}");
    }
    let module = text("module-docker.json.tmpl");
    for (from, to, problem) in [
        ("\"gpu\": 0", "\"gpu\": 1", "machine.gpu: a GPU"),
        ("\"gpu\": 0", "\"vram\": 8000", "machine.vram: a GPU"),
        ("\"gpu\": 0", "\"quantum\": 1", "machine.quantum: is unknown here"),
        (
            "\"job\": {",
            "\"inputFiles\": { \"required\": [\"a.txt\"] }, \"job\": {",
            "inputFiles.required: files that the client",
        ),
        ("\"Engine\": \"Docker\"", "\"Engine\": \"Language\"", "job.Spec.Engine: docker or wasm is needed"),
        ("\"Engine\": \"Docker\",", "", "Spec.Engine: is missing"),
    ] {
        let shown = shown(&module.replace(from, to), &choices(&[]));
        assert!(shown.starts_with(problem), "expected {problem}, found {shown}");
    }
}

#[test]
fn a_template_may_do_little_and_the_rest_is_refused_by_its_name() {
    let rendered = |template: &str| {
        let description = text("tasks-docker.json").replace("\"A=1=2\"", template);
        match read(&description, &choices(&[("A", "x\"y"), ("B", "b"), ("Empty", ""), ("Percent", "%s")])) {
            Ok(described) => {
                let value = described.job.env.iter().find(|(name, _)| name == "A");
                value.map_or_else(String::new, |(_, value)| value.clone())
            }
            Err(problem) => problem.to_string(),
        }
    };
    for (template, expected) in [
        // Values are JSON texts; `subst` puts in what they say, and only once.
        ("\"A={{if .A}}1{{else}}2{{end}}\"", "1"),
        ("\"A={{if .Empty}}1{{else}}2{{end}}\"", "1"),
        ("\"A={{if .None}}1{{else}}2{{end}}\"", "2"),
        ("\"A={{if .None}}1{{end}}\"", ""),
        ("\"A={{if .A}}{{if .None}}1{{else}}3{{end}}{{else}}2{{end}}\"", "3"),
        ("\"{{subst \"A=%s-%s\" .B .B}}\"", "b-b"),
        ("\"{{ subst \"A=%s%%\" .Percent }}\"", "%s%"),
        ("\"A=1  {{- if .A -}}   2   {{- end -}}  3\"", "123"),
        ("\"A=1  {{if .A}}   2   {{end}}  3\"", "1     2     3"),
        ("\"A=}} {{- /* no */ -}}\"", "template: {{/* no */}} is not among what is read here"),
        ("\"{{subst \"A=%s\" .A}}\"", "description: is no JSON"),
        ("\"{{subst \"A=%d\" .B}}\"", "template: subst \"A=%d\": only %s and %% are read here"),
        ("\"{{subst \"A=%s\" .None}}\"", "template: subst needs the input None"),
        ("\"{{subst \"A=%s\"}}\"", "template: subst \"A=%s\" has fewer inputs"),
        ("\"{{subst \"A=%s\" .B .B}}\"", "template: subst \"A=%s\" has more inputs"),
        ("\"{{subst \"A=%s\" \"x\"}}\"", "template: {{subst \"A=%s\" \"x\"}}: subst takes"),
        ("\"A={{js .A}}\"", "template: {{js .A}} is not among what is read here"),
        ("\"A={{.A | printf \"%q\"}}\"", "template: {{.A | printf \"%q\"}} is not among"),
        ("\"A={{.A.B}}\"", "template: {{.A.B}} is not among"),
        ("\"A={{range .A}}{{end}}\"", "template: {{range .A}} is not among"),
        ("\"A={{$x}}\"", "template: {{$x}} is not among"),
        ("\"A={{}}\"", "template: {{}} is not among"),
        ("\"A={{if .A}}1\"", "template: {{if .A}} has no {{end}}"),
        ("\"A={{if .A}}1{{else}}2{{else}}3{{end}}\"", "template: {{if .A}} has no {{end}}"),
        ("\"A=1{{end}}\"", "template: {{end}} without {{if}}"),
        ("\"A={{if .A\"", "template: {{if .A"),
    ] {
        let found = rendered(template);
        assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{template}: {found}");
    }
    let deep = format!("\"A={}{}\"", "{{if .A}}".repeat(20), "{{end}}".repeat(20));
    assert!(rendered(&deep).contains("more than 16 deep"));
    let wide = format!("\"A={}\"", "{{.Long}}".repeat(2000));
    let long = choices(&[("Long", &"x".repeat(1000))]);
    assert!(shown(&wide, &long).starts_with("template: what comes of it has more than"));
}

#[test]
fn an_offer_names_its_module_and_inputs() {
    let (module, inputs) = offer(&text("offer.json")).expect("an offer");
    assert_eq!(module.repository, "https://example.org/somebody/module-say");
    assert_eq!(module.hash, "0123456789abcdef0123456789abcdef01234567");
    assert_eq!(module.path, "/lilypad_module.json.tmpl");
    let described = read(&text("module-docker.json.tmpl"), &Choices { inputs, ..choices(&[]) }).expect("a job");
    assert_eq!(described.job.args[1], "moo & \"more\"");
    let inner = serde_json::from_str::<Value>(&text("offer.json")).unwrap()["deal"]["job_offer"].clone();
    assert_eq!(offer(&inner.to_string()).expect("an offer alone").0, module);
    for (from, to, problem) in [
        ("\"repo\"", "\"depot\"", "offer.deal.job_offer.module.repo: a string is needed"),
        ("\"module\": {", "\"modul\": {", "offer.deal.job_offer.module: is missing"),
        ("\"moo & \\\"more\\\"\"", "7", "offer.deal.job_offer.inputs.Message: a string is needed"),
        ("{ \"Message\": \"moo & \\\"more\\\"\" }", "7", "offer.deal.job_offer.inputs: an object is needed"),
        ("{", "", "offer: is no JSON"),
    ] {
        let found = offer(&text("offer.json").replacen(from, to, if from == "{" { 1 } else { 9 })).unwrap_err();
        assert!(found.to_string().starts_with(problem), "{found}");
    }
}
