//! The jobs that modules of the marketplace stand for here.
//!
//! A deal names a module: a template of a Bacalhau job in a git repository, which its parties fetch and run. Nothing is
//! fetched here. The operator keeps a folder of files, each of which says what job of this engine one module is:
//!
//! ```json
//! {
//!   "module": "https://github.com/someone/wordcount@0a1b…/module.json",
//!   "job": {
//!     "runtime": "wasm-1", "module": "blake3:…", "args": ["", "{{.Text}}"], "env": {}, "outputs": ["/outputs"],
//!     "limits": { "fuel": 10000000000, "memory_bytes": 268435456, "output_bytes": 16777216, "wall_ms": 60000 }
//!   },
//!   "defaults": { "Text": "nothing" }
//! }
//! ```
//!
//! `module` is repository, commit and path; a module that the marketplace's software knows by name has `name` instead.
//! `{{.Name}}` in arguments and in values of the environment is the deal's input of that name, else the default; what an input
//! holds is never looked into again, and nothing else is evaluated. Everything is named by content address.
//!
//! Who writes such a file says that the job here leaves the same bytes as the module there: `stdout`, `stderr`, exit code and
//! every output. Bacalhau's WASM executor gives a module an empty first argument.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tribunal_verifiers::{Cid, Request};

use super::deals::{JobOffer, Module};

/// Files in the folder that are looked at.
const FILES_MAX: usize = 1024;
/// Bytes of a file at most.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// A folder of files. They are read anew for every question, so what is added counts at once.
pub struct Modules {
    folder: PathBuf,
}

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    #[serde(default)]
    module: String,
    #[serde(default)]
    name: String,
    job: Map<String, Value>,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
}

/// Why a module does not become a job: a word and a sentence.
pub type NoJob = (&'static str, String);

impl Modules {
    /// The files of a folder, all of which are looked at once.
    ///
    /// # Errors
    /// A sentence about the first file that is of no use.
    pub fn open(folder: PathBuf) -> Result<Self, String> {
        let this = Self { folder };
        let mut seen = BTreeMap::new();
        for (file, template) in this.templates()? {
            let template = template.map_err(|problem| format!("{file}: {problem}"))?;
            if let Some(other) = seen.insert((template.module, template.name), file.clone()) {
                return Err(format!("{file} is about the same module as {other}"));
            }
        }
        Ok(this)
    }

    /// The job that a job offer asks for.
    ///
    /// # Errors
    /// [`NoJob`].
    pub fn job(&self, offer: &JobOffer) -> Result<Value, NoJob> {
        let wanted = offer.module.to_string();
        let unusable = |why| ("module-unusable", why);
        let mut found = None;
        let mut broken = Vec::new();
        for (file, template) in self.templates().map_err(unusable)? {
            match template {
                Ok(template) if template.is_of(&offer.module) => {
                    if let Some((other, _)) = found.replace((file.clone(), template)) {
                        return Err(unusable(format!("{file} and {other} are both about module {wanted}")));
                    }
                }
                Ok(_) => {}
                Err(problem) => broken.push(format!("{file}: {problem}")),
            }
        }
        match found {
            Some((file, template)) => {
                template.filled(&offer.inputs).map_err(|(code, why)| (code, format!("{file}: {why}")))
            }
            None if broken.is_empty() => Err(("module-unknown", format!("no file is about module {wanted}"))),
            None => Err(("module-unknown", format!("no file is about module {wanted}; {}", broken.join("; ")))),
        }
    }

    /// Every file with what is in it, ascending by name.
    #[allow(clippy::type_complexity)]
    fn templates(&self) -> Result<Vec<(String, Result<Template, String>)>, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", self.folder.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
            if files.len() > FILES_MAX {
                return Err(format!("{} has more than {FILES_MAX} files", self.folder.display()));
            }
        }
        files.sort();
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(files.iter().map(|path| (name(path), Template::read(path))).collect())
    }
}

impl Template {
    fn read(path: &PathBuf) -> Result<Self, String> {
        let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(format!("it has {bytes} bytes, more than {FILE_BYTES_MAX}"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let template: Self = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        template.check()?;
        Ok(template)
    }

    /// Whether it could be a job, whatever the inputs.
    fn check(&self) -> Result<(), String> {
        if self.module.is_empty() == self.name.is_empty() {
            return Err("it needs either a module, as repository@commit/path, or a name".into());
        }
        let fixed: BTreeMap<_, _> =
            self.job.iter().filter(|(key, _)| !matches!(key.as_str(), "args" | "env")).collect();
        if serde_json::to_string(&fixed).unwrap_or_default().contains("{{") {
            return Err("only args and env hold {{.Name}}".into());
        }
        let job = each_text(&self.job, &|text| fill(text, &|_| Some("")))?;
        let claim = json!({ "folder": Cid::of_data(b"").to_string() });
        let request = json!({ "method": { "kind": "reexecution" }, "job": job, "claim": claim });
        let request = Request::parse(&request.to_string()).map_err(|bad| bad.to_string())?;
        match request.first_file() {
            Some((field, name)) => Err(format!("{field} names a file, {name}, not a content address")),
            None => Ok(()),
        }
    }

    fn is_of(&self, module: &Module) -> bool {
        let wanted = module.to_string();
        if module.name.is_empty() { self.module == wanted } else { self.name == wanted }
    }

    fn filled(&self, inputs: &BTreeMap<String, String>) -> Result<Value, NoJob> {
        let value = |name: &str| inputs.get(name).or_else(|| self.defaults.get(name)).map(String::as_str);
        each_text(&self.job, &|text| fill(text, &value))
            .map(Value::Object)
            .map_err(|problem| ("input-missing", problem))
    }
}

/// A job with its arguments and the values of its environment replaced.
fn each_text(
    job: &Map<String, Value>,
    replace: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Map<String, Value>, String> {
    let mut job = job.clone();
    let args = job.get_mut("args").and_then(Value::as_array_mut).into_iter().flatten();
    for text in args.filter(|value| value.is_string()) {
        *text = replace(text.as_str().unwrap_or_default())?.into();
    }
    let env = job.get_mut("env").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for text in env.filter(|value| value.is_string()) {
        *text = replace(text.as_str().unwrap_or_default())?.into();
    }
    Ok(job)
}

/// Puts values in the place of `{{.Name}}`, in one pass.
fn fill<'a>(text: &str, value: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or_else(|| format!("{text:?}: {{{{ without }}}}"))?;
        let name = inside.trim().strip_prefix('.').unwrap_or_default();
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(format!("{text:?}: {{{{{inside}}}}} is no {{{{.Name}}}}, and nothing else is evaluated"));
        }
        filled.push_str(before);
        filled.push_str(value(name).ok_or_else(|| format!("the deal gives no input {name}, and there is no default"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Value {
        json!({
            "module": "https://example.org/m@abc/module.json",
            "job": {
                "runtime": "wasm-1",
                "module": format!("blake3:{}", "ab".repeat(32)),
                "args": ["", "-m", "<{{.Message}}|{{ .Seed }}>"],
                "env": { "M": "{{.Message}}" },
                "outputs": ["/outputs"],
                "limits": { "fuel": 1, "memory_bytes": 65536, "output_bytes": 1, "wall_ms": 1 },
            },
            "defaults": { "Seed": "42", "Message": "not this" },
        })
    }

    fn offer(inputs: &[(&str, &str)]) -> JobOffer {
        JobOffer {
            module: Module {
                name: String::new(),
                repo: "https://example.org/m".into(),
                hash: "abc".into(),
                path: "/module.json".into(),
            },
            inputs: inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn of(files: &[(&str, &Value)]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            for (name, value) in files {
                folder.write(name, &value.to_string());
            }
            folder
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn modules(&self) -> Modules {
            Modules::open(self.0.path().into()).unwrap()
        }
    }

    #[test]
    fn inputs_fill_a_template_and_are_never_looked_into() {
        let folder = Folder::of(&[("m.json", &template())]);
        let modules = folder.modules();
        let message = "\"quoted\" {{.Seed}} \\ {{";
        let job = modules.job(&offer(&[("Message", message), ("Other", "x")])).unwrap();
        assert_eq!(job["args"], json!(["", "-m", format!("<{message}|42>")]));
        assert_eq!(job["env"], json!({ "M": message }));
        assert_eq!(job["module"], template()["job"]["module"]);
        assert_eq!(modules.job(&offer(&[("Seed", "7")])).unwrap()["args"][2], "<not this|7>");
        let mut bare = template();
        bare["defaults"] = json!({});
        folder.write("m.json", &bare.to_string());
        let (code, why) = modules.job(&offer(&[("Message", "")])).unwrap_err();
        assert!(code == "input-missing" && why.contains("no input Seed"), "{code} {why}");
    }

    #[test]
    fn a_module_is_found_by_place_or_by_name_and_only_once() {
        let mut named = template();
        named["module"] = json!("");
        named["name"] = json!("cowsay:v1");
        let folder = Folder::of(&[("a.json", &template())]);
        folder.write("readme.txt", "no template");
        let modules = folder.modules();
        let mut by_name = offer(&[]);
        by_name.module.name = "cowsay:v1".into();
        let code = |offer: &JobOffer| modules.job(offer).map_or_else(|(code, _)| code, |_| "found");
        assert_eq!((code(&offer(&[])), code(&by_name)), ("found", "module-unknown"), "the name alone counts");
        folder.write("b.json", &named.to_string());
        assert_eq!(code(&by_name), "found", "what is added counts at once");
        let mut other = offer(&[]);
        other.module.hash = "abd".into();
        assert_eq!(code(&other), "module-unknown");
        other.module.name = "https://example.org/m@abc/module.json".into();
        assert_eq!(code(&other), "module-unknown", "a name is no place");
        folder.write("c.json", &template().to_string());
        assert_eq!(code(&offer(&[])), "module-unusable", "which one?");
        assert!(Modules::open(folder.0.path().into()).is_err_and(|why| why.contains("same module")));
        folder.write("c.json", "{");
        assert_eq!(code(&offer(&[])), "found");
        let (code, why) = modules.job(&other).unwrap_err();
        assert!(code == "module-unknown" && why.contains("c.json"), "{why}");
    }

    #[test]
    fn a_file_that_could_be_no_job_is_told_at_the_start() {
        let at = |pointer: &str, value: Value| {
            let mut template = template();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            template.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.into(), value);
            template
        };
        for (template, part) in [
            (at("/name", json!("both")), "either a module"),
            (at("/module", json!("")), "either a module"),
            (at("/surplus", json!(1)), "surplus"),
            (at("/job/module", json!("job.wasm")), "job.module names a file"),
            (at("/job/module", json!("{{.Module}}")), "only args and env"),
            (at("/job/outputs", json!(["/{{.Message}}"])), "only args and env"),
            (at("/job/args", json!(["{{range .}}"])), "is no {{.Name}}"),
            (at("/job/args", json!(["{{.A.B}}"])), "is no {{.Name}}"),
            (at("/job/args", json!(["{{.A"])), "without }}"),
            (at("/job/args", json!([7])), "job.args[0]"),
            (at("/job/outputs", json!(["/stdout"])), "job.outputs"),
            (at("/job/surplus", json!(1)), "job.surplus"),
        ] {
            let folder = Folder::of(&[("m.json", &template)]);
            let why = Modules::open(folder.0.path().into()).map(|_| ()).unwrap_err();
            assert!(why.starts_with("m.json: ") && why.contains(part), "{template}: {why}");
        }
        assert!(Modules::open("/nowhere/at/all".into()).is_err());
    }
}
