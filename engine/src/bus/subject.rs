/// Whether a message can be published on this subject: non-empty tokens separated by dots, no wildcards, no spaces.
pub(super) fn is_publishable(subject: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
    !subject.is_empty() && subject.split('.').all(|token| !token.is_empty() && token.chars().all(plain))
}

/// Whether a subject matches a filter: `*` is one token, a last `>` one or more.
pub(super) fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_broker_matches() {
        for (filter, subject, expected) in [
            ("deals.>", "deals.a.b", true),
            ("deals.>", "deals", false),
            ("deals.*", "deals.a", true),
            ("deals.*", "deals.a.b", false),
            ("receipts.*.x", "receipts.a.x", true),
            ("receipts.a.x", "receipts.a.x", true),
            ("receipts.a", "receipts.a.x", false),
            (">", "a", true),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }

    #[test]
    fn wildcards_and_empty_tokens_cannot_be_published_on() {
        for subject in ["", "a..b", "a.*", "a.>", "a b", ".a", "a."] {
            assert!(!is_publishable(subject), "{subject:?}");
        }
        assert!(is_publishable("deals.0xab.agreed"));
    }
}
