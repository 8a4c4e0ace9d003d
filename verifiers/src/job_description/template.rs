//! The part of Go's text/template that modules use, and nothing else.
//!
//! `{{.Name}}` is the input of that name as a JSON string, with its quotation marks, or nothing where there is none;
//! `{{if .Name}} … {{else}} … {{end}}` asks whether it is given; `{{subst "format" .Name …}}` puts the inputs themselves, without
//! quotation marks, in the place of `%s`. `{{-` and `-}}` drop the white space beside them. Whatever else a template may do is
//! refused by name: to guess what somebody ran would judge them by another job.
//!
//! Source: Lilypad-Tech/lilypad, `LoadModule` and `subst` in pkg/module/utils.go; Go's text/template and encoding/json.

use std::collections::BTreeMap;

/// Bytes of a template, and of what comes of it.
const BYTES_MAX: usize = 1024 * 1024;
/// `if` inside `if`.
const DEPTH_MAX: usize = 16;

/// One part of a template.
enum Part<'a> {
    Text(&'a str),
    /// Name of an input.
    Value(&'a str),
    /// A format and names of inputs.
    Subst(String, Vec<&'a str>),
    If(&'a str, Vec<Part<'a>>, Vec<Part<'a>>),
}

/// Renders a template with these inputs.
pub(super) fn render(template: &str, inputs: &BTreeMap<String, String>) -> Result<String, String> {
    if template.len() > BYTES_MAX {
        return Err(format!("at most {BYTES_MAX} bytes, not {}", template.len()));
    }
    let mut reader = Reader { rest: template, trim: false };
    let (parts, ending) = reader.parts(0)?;
    if let Some(ending) = ending {
        return Err(format!("{{{{{ending}}}}} without {{{{if}}}}"));
    }
    let mut text = String::new();
    write(&parts, inputs, &mut text)?;
    Ok(text)
}

struct Reader<'a> {
    rest: &'a str,
    /// Whether white space at the front goes.
    trim: bool,
}

impl<'a> Reader<'a> {
    /// Parts up to the end, or up to `else` or `end`, which is told.
    fn parts(&mut self, depth: usize) -> Result<(Vec<Part<'a>>, Option<&'static str>), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{{{{if}}}} lies more than {DEPTH_MAX} deep"));
        }
        let mut parts = Vec::new();
        loop {
            let Some(at) = self.rest.find("{{") else {
                let rest = std::mem::take(&mut self.rest);
                parts.push(Part::Text(self.trimmed(rest)));
                return Ok((parts, None));
            };
            let (text, rest) = self.rest.split_at(at);
            let (inside, rest) = action(&rest[2..])?;
            let mut text = self.trimmed(text);
            let (mut inside, mut trim) = (inside, false);
            if let Some(rest) = inside.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
                (inside, text) = (rest, text.trim_end());
            }
            if let Some(rest) = inside.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace)) {
                (inside, trim) = (rest, true);
            }
            parts.push(Part::Text(text));
            (self.rest, self.trim) = (rest, trim);
            let words = words(inside)?;
            match &words[..] {
                [Word::Name(name)] => parts.push(Part::Value(name)),
                [Word::Key("if"), Word::Name(name)] => {
                    let (then, mut ending) = self.parts(depth + 1)?;
                    let mut otherwise = Vec::new();
                    if ending == Some("else") {
                        (otherwise, ending) = self.parts(depth + 1)?;
                    }
                    if ending != Some("end") {
                        return Err(format!("{{{{if .{name}}}}} has no {{{{end}}}}"));
                    }
                    parts.push(Part::If(name, then, otherwise));
                }
                [Word::Key("else")] => return Ok((parts, Some("else"))),
                [Word::Key("end")] => return Ok((parts, Some("end"))),
                [Word::Key("subst"), Word::Text(format), names @ ..] => {
                    let names = names.iter().map(|word| match word {
                        Word::Name(name) => Ok(*name),
                        _ => Err(format!("{{{{{}}}}}: subst takes a format and inputs", inside.trim())),
                    });
                    parts.push(Part::Subst(format.clone(), names.collect::<Result<_, _>>()?));
                }
                _ => {
                    return Err(format!(
                        "{{{{{}}}}} is not among what is read here: .Name, if, else, end, subst",
                        inside.trim()
                    ));
                }
            }
        }
    }

    fn trimmed(&self, text: &'a str) -> &'a str {
        if self.trim { text.trim_start() } else { text }
    }
}

/// What stands before the `}}` that ends an action, and what follows. Text in quotation marks may hold braces.
fn action(text: &str) -> Result<(&str, &str), String> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' => break,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted && text[at..].starts_with("}}") => return Ok((&text[..at], &text[at + 2..])),
            _ => {}
        }
    }
    Err(format!("{{{{{} has no }}}}", text.chars().take(40).collect::<String>()))
}

enum Word<'a> {
    Key(&'a str),
    /// Of an input, without its dot.
    Name(&'a str),
    Text(String),
}

fn words(mut text: &str) -> Result<Vec<Word<'_>>, String> {
    let mut words = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(words);
        }
        if text.starts_with('"') {
            let end = text[1..].find('"').ok_or("a text has no end")? + 2;
            // JSON's texts are Go's where there is no escape but these; a backslash before a quotation mark is refused.
            let value = serde_json::from_str(&text[..end]).map_err(|_| format!("{} is no plain text", &text[..end]))?;
            words.push(Word::Text(value));
            text = &text[end..];
            continue;
        }
        let end = text.find(|character: char| character.is_whitespace() || character == '"').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let plain = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        words.push(match word.strip_prefix('.') {
            Some(name) if plain(name) => Word::Name(name),
            _ => Word::Key(word),
        });
        text = rest;
    }
}

fn write(parts: &[Part<'_>], inputs: &BTreeMap<String, String>, into: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => into.push_str(text),
            Part::Value(name) => {
                if let Some(value) = inputs.get(*name) {
                    into.push_str(&serde_json::Value::from(value.as_str()).to_string());
                }
            }
            // An empty input is given: its JSON text is not empty.
            Part::If(name, then, otherwise) => {
                write(if inputs.contains_key(*name) { then } else { otherwise }, inputs, into)?;
            }
            Part::Subst(format, names) => subst(format, names, inputs, into)?,
        }
        if into.len() > BYTES_MAX {
            return Err(format!("what comes of it has more than {BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

fn subst(format: &str, names: &[&str], inputs: &BTreeMap<String, String>, into: &mut String) -> Result<(), String> {
    let mut names = names.iter();
    let mut parts = format.split('%');
    into.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        if let Some(rest) = part.strip_prefix('s') {
            let name = names.next().ok_or_else(|| format!("subst {format:?} has fewer inputs than %s"))?;
            let value = inputs.get(*name).ok_or_else(|| format!("subst needs the input {name}, which is not given"))?;
            into.push_str(value);
            into.push_str(rest);
        } else if part.is_empty()
            && let Some(rest) = parts.next()
        {
            into.push('%');
            into.push_str(rest);
        } else {
            return Err(format!("subst {format:?}: only %s and %% are read here"));
        }
    }
    match names.next() {
        Some(_) => Err(format!("subst {format:?} has more inputs than %s")),
        None => Ok(()),
    }
}
