//! Fields of an object, by names in any case; what is left over is unknown.

use crate::{BadRequest, json::Json};

/// The fields of one object.
pub(super) struct Fields<'a> {
    path: String,
    left: Vec<(&'a str, &'a Json)>,
}

/// A value and where it stands.
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) value: &'a Json,
}

impl<'a> Fields<'a> {
    pub(super) fn of(path: &str, value: &'a Json) -> Result<Self, BadRequest> {
        let Json::Object(fields) = value else {
            let path = if path.is_empty() { "description" } else { path };
            return Err(BadRequest::new(path, format!("an object is needed, not {}", value.kind())));
        };
        let mut names: Vec<_> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        let this =
            Self { path: path.to_owned(), left: fields.iter().map(|(name, value)| (name.as_str(), value)).collect() };
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BadRequest::new(this.at(&pair[0]), "is given twice")),
            None => Ok(this),
        }
    }

    fn at(&self, name: &str) -> String {
        let name: String = name.chars().take(80).collect();
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    /// A field that is there and not null.
    pub(super) fn optional(&mut self, name: &str) -> Option<At<'a>> {
        let index = self.left.iter().position(|(found, _)| found.eq_ignore_ascii_case(name))?;
        let (found, value) = self.left.swap_remove(index);
        (*value != Json::Null).then(|| At { path: self.at(found), value })
    }

    pub(super) fn required(&mut self, name: &str) -> Result<At<'a>, BadRequest> {
        let path = self.at(name);
        self.optional(name).ok_or_else(|| BadRequest::new(path, "is missing"))
    }

    /// An object that may be absent, then without fields.
    pub(super) fn inside(&mut self, name: &str) -> Result<Self, BadRequest> {
        match self.optional(name) {
            Some(at) => Self::of(&at.path, at.value),
            None => Ok(Self { path: self.at(name), left: Vec::new() }),
        }
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, BadRequest> {
        let Some(at) = self.optional(name) else { return Ok(Vec::new()) };
        at.list()?.iter().map(|at| at.text().map(str::to_owned)).collect()
    }

    pub(super) fn pass_over(&mut self, names: &[&str]) {
        self.left.retain(|(found, _)| !names.iter().any(|name| found.eq_ignore_ascii_case(name)));
    }

    /// Takes every field that is left, with its name.
    pub(super) fn rest(&mut self) -> Vec<(&'a str, At<'a>)> {
        let left = std::mem::take(&mut self.left);
        left.into_iter().map(|(name, value)| (name, At { path: self.at(name), value })).collect()
    }

    pub(super) fn finish(self) -> Result<(), BadRequest> {
        match self.left.first() {
            Some((name, _)) => Err(BadRequest::new(self.at(name), "is unknown here, and may matter to the job")),
            None => Ok(()),
        }
    }
}

impl<'a> At<'a> {
    pub(super) fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, BadRequest> {
        Err(BadRequest::new(&self.path, problem))
    }

    pub(super) fn text(&self) -> Result<&'a str, BadRequest> {
        match self.value {
            Json::Text(text) => Ok(text),
            other => self.wrong(format!("a string is needed, not {}", other.kind())),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<At<'a>>, BadRequest> {
        match self.value {
            Json::List(entries) => Ok(entries
                .iter()
                .enumerate()
                .map(|(index, value)| At { path: format!("{}[{index}]", self.path), value })
                .collect()),
            other => self.wrong(format!("a list is needed, not {}", other.kind())),
        }
    }

    /// A whole number that is not negative; nothing for zero.
    pub(super) fn count(&self) -> Result<Option<u64>, BadRequest> {
        match self.value {
            Json::Number(text) => match text.parse() {
                Ok(0) => Ok(None),
                Ok(count) => Ok(Some(count)),
                Err(_) => self.wrong(format!("a whole number is needed, not {text}")),
            },
            other => self.wrong(format!("a number is needed, not {}", other.kind())),
        }
    }

    /// Refuses anything but nothing: empty, zero, false, "0", "none".
    pub(super) fn none(&self, what: &str) -> Result<(), BadRequest> {
        let none = match self.value {
            Json::Null | Json::Bool(false) => true,
            Json::Bool(true) => false,
            Json::Number(text) => text == "0",
            Json::Text(text) => matches!(&*text.to_ascii_lowercase(), "" | "0" | "none" | "noop"),
            Json::List(entries) => entries.is_empty(),
            Json::Object(fields) => fields.is_empty(),
        };
        if none { Ok(()) } else { self.wrong(format!("{what}: no job here has that")) }
    }
}
